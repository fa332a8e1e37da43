"""Things that show a stored disk as a file: each tool's mount, and the C export of the raw file.
And the guest's files in it, as our mount shows them and as the kernel's driver does.

Decides how a mount is brought up with cold caches and taken down. Measures nothing.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.bench.archivers import Archiver, Backpoint
from tools.bench.process import BenchFailure, Command, Daemon, Runner
from tools.bench.reads import drop_caches

from guest_disks.partition import attached

VM = "web01"
EXPORT = "C export of the raw file"
LOOP = "loop mount of the flat file"
# Nothing is replayed: what is written nowhere cannot be.
LOOP_OPTIONS = {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid", "btrfs": "ro,norecovery"}


@dataclass(frozen=True)
class Opened:
    """A running mount and the disk in it."""

    daemon: Daemon
    path: Path


class Mountable(ABC):
    """A stored disk that can be mounted again and again, in a folder of its own."""

    def __init__(self, runner: Runner, name: str, folder: Path, disk: Path) -> None:
        self.name = name
        self.disk = disk
        self.folder = folder
        self._runner = runner

    @abstractmethod
    def prepare(self) -> None:
        """Store the disk."""

    @abstractmethod
    @contextmanager
    def mounted(self) -> Iterator[Opened]:
        """Mount with the kernel's caches dropped and a new daemon; unmount at the end."""


class MountedRepository(Mountable):
    """What a backup tool shows of its repository."""

    def __init__(self, runner: Runner, archiver: Archiver, folder: Path, disk: Path) -> None:
        super().__init__(runner, archiver.name, folder, disk)
        self._archiver = archiver
        self.repo = folder / "repo"

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._archiver.forget(self.repo)
        self._runner.run(self._archiver.create(self.repo))
        self._runner.run(self._archiver.backup(self.repo, VM, self.disk))

    @contextmanager
    def mounted(self) -> Iterator[Opened]:
        at = self.folder / "mnt"
        at.mkdir(exist_ok=True)
        drop_caches()

        def ready() -> bool:
            return os.path.ismount(at) and self._find(at) is not None

        command = self._archiver.mount(self.repo, at)
        with self._runner.daemon(command, ready, self._archiver.unmount(at)) as daemon:
            path = self._find(at)
            if path is None:
                raise BenchFailure(f"the disk went away from {at}")
            yield Opened(daemon, path)

    def _find(self, at: Path) -> Path | None:
        return self._archiver.mounted_disk(at, VM, self.disk)


class MountedRaw(Mountable):
    """qemu-storage-daemon serves the raw file over FUSE: no backup, but the bound for a mount."""

    def __init__(self, runner: Runner, executable: Path, folder: Path, disk: Path) -> None:
        super().__init__(runner, EXPORT, folder, disk)
        self._executable = executable

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def mounted(self) -> Iterator[Opened]:
        # The export covers an existing file, and ends by itself on SIGTERM.
        at = self.folder / "exported.raw"
        at.touch()
        beneath = at.stat().st_dev
        drop_caches()
        blockdev = f"driver=file,node-name=raw,read-only=on,filename={self.disk}"
        export = f"type=fuse,id=out,node-name=raw,mountpoint={at},writable=off"
        argv = (str(self._executable), "--blockdev", blockdev, "--export", export)
        with self._runner.daemon(Command(argv), lambda: at.stat().st_dev != beneath) as daemon:
            yield Opened(daemon, at)


@dataclass(frozen=True)
class MountedGuests:
    """A repository of Backpoint with points of several VMs, whose guests are looked into."""

    runner: Runner
    archiver: Backpoint
    folder: Path

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @contextmanager
    def mounted(self) -> Iterator[Daemon]:
        """Cold as `Mountable.mounted`; nothing of any point has been looked at."""
        at = self.folder / "mnt"
        at.mkdir(exist_ok=True)
        drop_caches()
        command, stop = self.archiver.mount(self.repo, at), self.archiver.unmount(at)
        with self.runner.daemon(command, lambda: os.path.ismount(at), stop) as daemon:
            yield daemon

    def flat(self, vm: str) -> Path:
        return self._point(vm) / "disk0-flat.vmdk"

    def guest(self, vm: str, place: str) -> Path:
        """A tree of the VM's guest."""
        return self._point(vm) / "guest" / place

    @contextmanager
    def loop_mounted(self, vm: str, kind: str) -> Iterator[Path]:
        """The only partition of the flat file, by the kernel's driver. After `mounted`."""
        at = self.folder / "loop"
        at.mkdir(exist_ok=True)
        try:
            with attached(self.flat(vm), read_only=True) as device:
                options = ("-o", LOOP_OPTIONS[kind])
                self.runner.run(Command(("mount", "-t", kind, *options, str(device), str(at))))
                try:
                    yield at
                finally:
                    self.runner.run(Command(("umount", str(at))))
        except RuntimeError as error:
            raise BenchFailure(str(error)) from error

    def by_time(self, path: Path) -> Path:
        """The same place, named by its point's time instead of `latest`."""
        vms = self.folder / "mnt" / "vms"
        vm, newest, *rest = path.relative_to(vms).parts
        return (vms / vm / newest).resolve().joinpath(*rest)

    def _point(self, vm: str) -> Path:
        return self.folder / "mnt" / "vms" / vm / "latest"
