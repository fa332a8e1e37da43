"""How each backup tool is asked to do the same work: one class a tool, commands only.

Decides the options of every tool (compression, encryption, chunking), which is what makes the
comparison fair or not. Runs nothing. Each tool's caches live beside its repository, so a fresh
repository is fresh altogether.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path

from tools.bench.process import BenchFailure, Command

PASSPHRASE = "benchmark"


class Archiver(ABC):
    """A tool that backs up a raw disk into a repository and can mount what it stored."""

    settings: str
    """The choices made for this tool, for the report."""

    def __init__(self, name: str, executable: Path) -> None:
        self.name = name
        self.executable = str(executable)

    @abstractmethod
    def create(self, repo: Path) -> Command:
        """Make an empty sealed repository."""

    @abstractmethod
    def backup(self, repo: Path, vm: str, disk: Path) -> Command:
        """Back up `disk` as the newest state of `vm`, reading all of it."""

    @abstractmethod
    def mount(self, repo: Path, at: Path) -> Command:
        """Stay in the foreground with the repository mounted."""

    @abstractmethod
    def mounted_disk(self, at: Path, vm: str, disk: Path) -> Path | None:
        """Where the newest state of the disk is in the mount, None while it is not there."""

    @abstractmethod
    def thin(self, repo: Path, vm: str) -> tuple[Command, ...]:
        """Keep only the newest state of `vm`, and give back the space of the others."""

    def unmount(self, at: Path) -> Command:
        return Command(("fusermount3", "-u", str(at)))

    def forget(self, repo: Path) -> None:
        """Delete a repository and every cache of it."""
        shutil.rmtree(repo, ignore_errors=True)
        shutil.rmtree(_state(repo), ignore_errors=True)


class Backpoint(Archiver):
    settings = "defaults"

    def create(self, repo: Path) -> Command:
        return self._command(repo, "init")

    def backup(self, repo: Path, vm: str, disk: Path) -> Command:
        return self._command(repo, "backup", "image", "--vm", vm, str(disk))

    def backup_changed(self, repo: Path, vm: str, disk: Path, changed: Path) -> Command:
        """Back up only the ranges named in a changed-block list (JSON lines, bytes)."""
        listed = ("--changed-list", str(changed))
        return self._command(repo, "backup", "image", "--vm", vm, *listed, str(disk))

    def mount(self, repo: Path, at: Path) -> Command:
        return self._command(repo, "mount", str(at), "--foreground")

    def mounted_disk(self, at: Path, vm: str, disk: Path) -> Path | None:
        path = at / "vms" / vm / "latest" / "disk0-flat.vmdk"
        return path if path.exists() else None

    def thin(self, repo: Path, vm: str) -> tuple[Command, ...]:
        collect = ("collect", "--max-repack", "1T")
        return self._command(repo, "prune", vm, "--keep-last", "1"), self._command(repo, *collect)

    def unmount(self, at: Path) -> Command:
        return Command((self.executable, "umount", str(at)))

    def _command(self, repo: Path, *words: str) -> Command:
        env = {"BACKPOINT_PASSPHRASE": PASSPHRASE}
        return Command((self.executable, "-r", str(repo), *words), env=env)


class Borg(Archiver):
    """What borg 1.4 and 2 share; a disk image's user takes fixed chunks and skips holes."""

    create_options = ("--sparse", "--chunker-params", "fixed,262144", "--compression", "zstd,1")

    def mounted_disk(self, at: Path, vm: str, disk: Path) -> Path | None:
        found = sorted(at.glob(f"{vm}*/{disk.name}")) or sorted(at.glob(disk.name))
        return found[-1] if found else None

    def _command(self, cwd: Path | None, repo: Path, *words: str) -> Command:
        env = {
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(_state(repo)),
            "BORG_FUSE_IMPL": "pyfuse3",
            "BORG_REPO": str(repo),
        }
        return Command((self.executable, *words), cwd, env)


class Borg1(Borg):
    settings = "--encryption repokey, fixed 256 KiB chunks, zstd,1, --sparse"

    def create(self, repo: Path) -> Command:
        # With SHA-256 in hardware a repeated scan took 0.48 s, against 0.52 s in the blake2 mode.
        return self._command(None, repo, "init", "--encryption", "repokey")

    def backup(self, repo: Path, vm: str, disk: Path) -> Command:
        archive = f"::{vm}-{{now:%Y%m%dT%H%M%S.%f}}"
        return self._command(disk.parent, repo, "create", *self.create_options, archive, disk.name)

    def mount(self, repo: Path, at: Path) -> Command:
        return self._command(None, repo, "mount", "--foreground", "::", str(at))

    def thin(self, repo: Path, vm: str) -> tuple[Command, ...]:
        prune = ("prune", "--keep-last", "1", "--glob-archives", f"{vm}-*")
        return self._command(None, repo, *prune), self._command(None, repo, "compact")


class Borg2(Borg):
    settings = "--encryption aes256-ocb --id-hash blake3, fixed 256 KiB chunks, zstd,1, --sparse"

    def create(self, repo: Path) -> Command:
        sealing = ("--encryption", "aes256-ocb", "--id-hash", "blake3")
        return self._command(None, repo, "repo-create", *sealing)

    def backup(self, repo: Path, vm: str, disk: Path) -> Command:
        words = ("create", *self.create_options, vm, disk.name)
        return self._command(disk.parent, repo, *words)

    def mount(self, repo: Path, at: Path) -> Command:
        return self._command(None, repo, "mount", "--foreground", str(at))

    def thin(self, repo: Path, vm: str) -> tuple[Command, ...]:
        prune = self._command(None, repo, "prune", "--keep", "1", vm)
        return prune, self._command(None, repo, "compact")


class Restic(Archiver):
    # 0.14 has no level to choose: auto is zstd at its library's default speed.
    settings = "repository format 2, --compression auto"

    def create(self, repo: Path) -> Command:
        return self._command(None, repo, "init", "--repository-version", "2")

    def backup(self, repo: Path, vm: str, disk: Path) -> Command:
        words = ("backup", "--quiet", "--compression", "auto", "--host", vm, disk.name)
        return self._command(disk.parent, repo, *words)

    def mount(self, repo: Path, at: Path) -> Command:
        return self._command(None, repo, "mount", str(at))

    def mounted_disk(self, at: Path, vm: str, disk: Path) -> Path | None:
        newest = at / "hosts" / vm / "latest"
        for path in (newest / disk.name, newest / disk.relative_to("/")):
            if path.exists():
                return path
        return None

    def thin(self, repo: Path, vm: str) -> tuple[Command, ...]:
        words = ("forget", "--quiet", "--group-by", "host", "--keep-last", "1", "--prune")
        return (self._command(None, repo, *words),)

    def _command(self, cwd: Path | None, repo: Path, *words: str) -> Command:
        env = {"RESTIC_PASSWORD": PASSPHRASE, "RESTIC_CACHE_DIR": str(_state(repo))}
        return Command((self.executable, "-r", str(repo), *words), cwd, env)


CLASSES: dict[str, type[Archiver]] = {
    "backpoint": Backpoint,
    "borg 1.4": Borg1,
    "borg 2": Borg2,
    "restic": Restic,
}


def archivers(executables: dict[str, Path]) -> list[Archiver]:
    """Every tool that is installed, Backpoint first."""
    return [made(name, executables[name]) for name, made in CLASSES.items() if name in executables]


def stored_bytes(repo: Path) -> int:
    """Sum of the sizes of a repository's files. Raises BenchFailure if there are none."""
    total = sum(path.stat().st_size for path in repo.rglob("*") if path.is_file())
    if total == 0:
        raise BenchFailure(f"{repo} holds nothing")
    return total


def _state(repo: Path) -> Path:
    return repo.with_name(repo.name + ".state")
