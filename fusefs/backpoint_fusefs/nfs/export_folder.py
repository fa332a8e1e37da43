"""An export's folder below /run: its configuration, the place of its private mount, its state.

Decides that a repository has one export at a time on a machine, and what a killed one leaves to be
cleared. What the files hold is for others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.mount_point import find_mount
from backpoint_fusefs.nfs.anchor_device import clear_devices
from backpoint_fusefs.process_mark import process_mark, still_runs
from backpoint_fusefs.unmounting import take_away
from backpoint_repo.errors import UsageError

RUNTIME: Final = Path("/run/backpoint")
_TAKEN_S: Final = 10.0
"""A killed export's mount, which shares its lock, ends within this."""
_MARK_MAX: Final = 100
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class ExportFolder:
    """Places in it; nothing is opened."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def mount(self) -> Path:
        return self.root / "mount"

    @property
    def anchor(self) -> Path:
        return self.root / "anchor.img"

    @property
    def config(self) -> Path:
        return self.root / "ganesha.conf"

    @property
    def clients(self) -> Path:
        """What Ganesha keeps of NFSv4 clients."""
        return self.root / "clients"

    @property
    def state(self) -> Path:
        return self.root / "export.json"


def folder_of(repository_id: bytes, runtime: Path = RUNTIME) -> ExportFolder:
    """Where the repository's export is, whether it runs or not."""
    return ExportFolder(runtime / f"export-{repository_id.hex()[:16]}")


@contextlib.contextmanager
def taken(folder: ExportFolder) -> Iterator[None]:
    """Have it, made and empty, and leave nothing of it. Raises UsageError where an export runs."""
    lock = _locked(folder)
    try:
        _clear(folder)
        folder.mount.mkdir(mode=0o700)
        folder.clients.mkdir(mode=0o700)
        yield
        _clear(folder)
        folder.lock.unlink()
        folder.root.rmdir()
    finally:
        os.close(lock)


def _locked(folder: ExportFolder) -> int:
    """The lock's descriptor."""
    deadline = time.monotonic() + _TAKEN_S
    while True:
        lock = _opened(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not the lock of an export that was just ending: that file has no name any more.
            if os.fstat(lock).st_nlink:
                os.ftruncate(lock, 0)
                os.pwrite(lock, process_mark(os.getpid()), 0)
                return lock
        except BlockingIOError:
            # With a dead owner, only what it left still has the lock, and lets go of it.
            if still_runs(os.pread(lock, _MARK_MAX, 0)) or time.monotonic() > deadline:
                os.close(lock)
                raise UsageError(
                    "this repository is exported already (`backpoint export --status` says how): "
                    f"end that first; its folder is {folder.root}"
                ) from None
        os.close(lock)
        time.sleep(_POLL_S)


def _opened(folder: ExportFolder) -> int:
    root = folder.root
    try:
        root.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
        owner = root.lstat()
        if owner.st_uid != os.geteuid() or owner.st_mode & 0o077:
            raise UsageError(f"{root} is not a private folder of this user: remove it")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(folder.lock, flags, 0o600)
    except FileNotFoundError:
        # An export that ended took its folder away at this very moment.
        raise UsageError("another export of this repository is just ending: try again") from None
    except OSError as error:
        raise UsageError(f"cannot make {root}: {error.strerror}; only root can export") from error


def _clear(folder: ExportFolder) -> None:
    if find_mount(folder.mount) is not None:
        take_away(folder.mount, lazy=True)
    clear_devices(folder.anchor)
    for path in folder.root.iterdir():
        if path == folder.lock:
            continue
        if path == folder.mount:
            # Never into it: were it still mounted, this would reach sessions.
            path.rmdir()
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
