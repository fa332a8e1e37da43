"""Disks whose guest files are listed and read: very many of them, one large folder, large files.

Decides what is in each and where; the same counts give the same names and sizes. Every disk has
one partition and one filesystem, made and filled by the kernel's driver. Making them needs root.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from tools.bench.content import MIB, records
from tools.bench.process import BenchFailure, Command, Runner

from guest_disks.partition import attached, write_table

Kind = Literal["ext4", "xfs", "btrfs"]
KINDS: Final[tuple[Kind, ...]] = ("ext4", "xfs", "btrfs")
DISK_NAME: Final = "disk0.raw"
PLACE: Final = "disk0-p1"
"""The name of the only volume of each disk in `guest/`."""
MANY, CONTENT = "many", "content"
FOLDER, LARGE = "listed", "large"
READERS: Final = 16
ROOT_UUID: Final = "6b1f2c2e-0000-4000-8000-000000000002"
_MANY_SIZE: Final = 1 << 40
_FILES_EACH: Final = 1000
_PIECE: Final = 4 * MIB
"""Two files that grow in turns by this much lie on the disk in pieces of it."""
_SEED: Final = 20261121
_MKFS: Final[dict[Kind, tuple[str, ...]]] = {
    # The disks are holes already: discarding or zeroing them would only take time.
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}


@dataclass(frozen=True)
class Counts:
    """How much there is. large: bytes of each large file; read: bytes of each reader's file."""

    folders: int
    entries: int
    large: int
    read: int

    @classmethod
    def of(cls, share: float) -> Counts:
        """A share of what the aims are for."""
        return cls(
            folders=max(1, round(1000 * share)),
            entries=max(1000, round(100_000 * share)),
            large=max(1, round(128 * share)) * _PIECE,
            read=max(1, round(32 * share)) * MIB,
        )

    @property
    def files(self) -> int:
        """In the disk of very many."""
        return self.folders * _FILES_EACH

    @property
    def one_of_many(self) -> str:
        """A file in the midst of very many."""
        return many_path(self.folders * 2 // 3, _FILES_EACH // 3)


@dataclass(frozen=True)
class LargeFile:
    """Where it lies: in how many extents, in the disk from which byte on."""

    extents: int
    disk_offset: int


def make_guest_disks(runner: Runner, at: Path, counts: Counts) -> None:
    """Fill `at` with a folder for each disk. Raises BenchFailure."""
    _make(runner, at / MANY, "ext4", _MANY_SIZE, lambda root: _fill_with_many(root, counts))
    for kind in KINDS:
        size = 2 << 30
        _make(
            runner, at / kind, kind, size, lambda root: fill_folder(root / FOLDER, counts.entries)
        )
    size = 2 * counts.large + READERS * counts.read + (1 << 30)
    _make(runner, at / CONTENT, "ext4", size, lambda root: _fill_with_content(root, counts))
    with _filesystem(runner, at / CONTENT / DISK_NAME, "ext4") as root:
        large = asdict(_where(runner, root / LARGE))
    (at / CONTENT / "large.json").write_text(json.dumps(large))


def disk_of(disks: Path, name: str) -> Path:
    """One of the disks that were made in `disks`."""
    return disks / name / DISK_NAME


def large_file(disks: Path) -> LargeFile:
    """What was noted of the large file when it was made."""
    return LargeFile(**json.loads((disks / CONTENT / "large.json").read_text()))


def many_path(folder: int, file: int) -> str:
    """One of very many."""
    return f"srv/folder{folder:04d}/file{file:04d}.txt"


def small_content(path: str) -> bytes:
    """What a small file begins with."""
    return f"This is {path}.\n".encode()


def readers_file(number: int) -> str:
    """The file of one of READERS readers."""
    return f"readers/{number:02d}"


def fill_folder(folder: Path, count: int) -> None:
    """Small files with names as long as those of mail or of uploads."""
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(count):
            name = f"2026-11-{number % 30 + 1:02d}-upload-{number:06d}.txt"
            _write_small(descriptor, name, name)
    finally:
        os.close(descriptor)


def _fill_with_many(root: Path, counts: Counts) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "fstab").write_text(f"UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n")
    for folder in range(counts.folders):
        path = root / many_path(folder, 0)
        path.parent.mkdir(parents=True)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for file in range(_FILES_EACH):
                inside = many_path(folder, file)
                _write_small(descriptor, inside.rpartition("/")[2], inside)
        finally:
            os.close(descriptor)


def _write_small(folder: int, name: str, path: str) -> None:
    """No two files are the same: a repository would keep them once."""
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
    os.write(file, small_content(path) * 4)
    os.close(file)


def _fill_with_content(root: Path, counts: Counts) -> None:
    rng = np.random.default_rng(_SEED)
    (root / "readers").mkdir()
    with (root / LARGE).open("wb") as one, (root / f"{LARGE}-other").open("wb") as other:
        for _ in range(0, counts.large, _PIECE):
            for file in (one, other):
                file.write(records(rng, _PIECE))
                # Only what is written out has its place.
                file.flush()
                os.fdatasync(file.fileno())
    for number in range(READERS):
        (root / readers_file(number)).write_bytes(records(rng, counts.read))


def _make(
    runner: Runner, folder: Path, kind: Kind, size: int, fill: Callable[[Path], None]
) -> None:
    folder.mkdir()
    disk = folder / DISK_NAME
    try:
        # The table's type is the same for all that Linux has.
        write_table(disk, size, "ext4", "gpt", identity=_SEED)
        named = ("-U", ROOT_UUID) if kind == "ext4" else ()
        with attached(disk) as device:
            runner.run(Command((*_MKFS[kind], *named, str(device))))
    except RuntimeError as error:
        raise BenchFailure(str(error)) from error
    with _filesystem(runner, disk, kind) as root:
        fill(root)


@contextmanager
def _filesystem(runner: Runner, disk: Path, kind: Kind) -> Iterator[Path]:
    point = disk.with_name("mounted")
    point.mkdir()
    # Inode tables zeroed by a thread would be blocks of data in the image.
    options = ("-o", "noinit_itable") if kind == "ext4" else ()
    with attached(disk) as device:
        runner.run(Command(("mount", "-t", kind, *options, str(device), str(point))))
        try:
            yield point
        finally:
            runner.run(Command(("umount", str(point))))
    point.rmdir()


def _where(runner: Runner, file: Path) -> LargeFile:
    printed, _ = runner.output(Command(("filefrag", "-b4096", "-v", str(file))))
    places = [
        int(found) for found in re.findall(r"^ +\d+: +\d+\.\. +\d+: +(\d+)\.\.", printed, re.M)
    ]
    if not places:
        raise BenchFailure(f"filefrag names no extents:\n{printed}")
    # The partition begins at 1 MiB.
    return LargeFile(len(places), min(places) * 4096 + MIB)
