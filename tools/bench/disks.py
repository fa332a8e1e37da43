"""Guest disks for the benchmarks: ext4 in one MBR partition, and sparse disks of any size.

Decides how an image is made and kept between runs. Knows no backup tool. Making one needs root
(loop mounts). Offsets and sizes are bytes. An image folder appears whole or not at all.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tools.bench.content import MIB, change_tree, make_tree, noise, records
from tools.bench.guest_files import Counts, make_guest_disks
from tools.bench.process import Command, Runner

PARTITION_OFFSET = MIB
DISK = "disk0.raw"
SEED = 20261120
# Part of the names below the cache; raise it when the same sizes give other disks.
RECIPE = 3
# A day in a disk with 1.9 GB of data: 80 MB new, 200 files appended to; in others by proportion.
DAY_DATA = 1900 * MIB
DAY_NEW = 80_000_000
DAY_APPENDED = 200
FS_UUID = "6b1f2c2e-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Fleet:
    """One VM on two days and a second VM with the same files; each path is a raw disk."""

    day1: Path
    day2: Path
    other: Path


class DiskMaker:
    """Makes images below `cache`, or finds them there from an earlier run with the same sizes."""

    def __init__(self, runner: Runner, cache: Path) -> None:
        self._runner = runner
        self._cache = cache

    def fleet(self, data_size: int) -> Fleet:
        """Disks of three times `data_size` with that much data in them."""
        folder = self._cached(f"fleet-{data_size}", lambda at: self._make_fleet(at, data_size))
        return Fleet(folder / "day1" / DISK, folder / "day2" / DISK, folder / "other" / DISK)

    def similar(self, count: int, data_size: int) -> list[Path]:
        """`count` disks with the same files in different order and a twentieth of their own."""
        name = f"similar-{count}-{data_size}"
        folder = self._cached(name, lambda at: self._make_similar(at, count, data_size))
        return [folder / f"vm{number}" / DISK for number in range(count)]

    def guests(self, counts: Counts) -> Path:
        """The folder of the disks that `guest_files.py` names."""
        name = f"guests-{counts.files}-{counts.entries}-{counts.large}-{counts.read}"
        return self._cached(name, lambda at: make_guest_disks(self._runner, at, counts))

    def copy(self, disk: Path, target: Path) -> None:
        """A sparse copy; the target's folder is made."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._runner.run(Command(("cp", "--sparse=always", str(disk), str(target))))

    def live_a_day(self, disk: Path, day: int, data_size: int, seed: int = SEED) -> None:
        """Change a disk that was made with `data_size` bytes of files."""
        new_bytes = DAY_NEW * data_size // DAY_DATA
        appended = max(1, DAY_APPENDED * data_size // DAY_DATA)
        with self._mounted(disk) as tree:
            change_tree(tree, day, new_bytes, appended, seed)

    def _cached(self, name: str, make: Callable[[Path], None]) -> Path:
        folder = self._cache / f"{name}-recipe{RECIPE}"
        if not folder.is_dir():
            making = self._cache / f"{name}.making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            print(f"making {name} in {self._cache}", flush=True)
            make(making)
            making.rename(folder)
        return folder

    def _make_fleet(self, at: Path, data_size: int) -> None:
        tree = at / "tree"
        make_tree(tree, data_size, SEED)
        disk_size = (data_size * 3) // MIB * MIB
        self._make_filesystem(at / "day1" / DISK, disk_size, tree)
        self.copy(at / "day1" / DISK, at / "day2" / DISK)
        self.live_a_day(at / "day2" / DISK, 2, data_size)
        self._make_filesystem(at / "other" / DISK, disk_size, None)
        self._fill(at / "other" / DISK, tree, SEED + 1)
        shutil.rmtree(tree)

    def _make_similar(self, at: Path, count: int, data_size: int) -> None:
        tree = at / "tree"
        make_tree(tree, int(data_size * 0.95), SEED)
        for number in range(count):
            disk = at / f"vm{number}" / DISK
            own = at / f"own{number}"
            make_tree_of_noise(own, int(data_size * 0.05), SEED + number)
            self._make_filesystem(disk, (data_size * 3) // MIB * MIB, None)
            self._fill(disk, tree, SEED + number)
            self._fill(disk, own, SEED + number)
            shutil.rmtree(own)
        shutil.rmtree(tree)

    def _make_filesystem(self, disk: Path, size: int, tree: Path | None) -> None:
        disk.parent.mkdir(parents=True, exist_ok=True)
        with disk.open("wb") as file:
            file.truncate(size)
            file.write(master_boot_record(size))
        options = f"offset={PARTITION_OFFSET},hash_seed={FS_UUID}"
        filled = ("-d", str(tree)) if tree else ()
        blocks_kib = (size - PARTITION_OFFSET) // 1024
        mkfs = ("mkfs.ext4", "-q", "-F", "-U", FS_UUID, "-E", options, *filled)
        made = disk.with_name(disk.name + ".made")
        disk.rename(made)
        self._runner.run(Command((*mkfs, str(made), f"{blocks_kib}k")))
        # mkfs leaves preallocated blocks, which are data or hole to SEEK_DATA as the page cache has
        # them or not. The copy has none, so that every tool and run reads the same disk: borg 1.4
        # --sparse stored 15.9 MB instead of 7.6 MB on the next day when the map had changed.
        self.copy(made, disk)
        made.unlink()

    def _fill(self, disk: Path, tree: Path, order: int) -> None:
        files = sorted(path for path in tree.rglob("*") if path.is_file())
        random.Random(order).shuffle(files)
        with self._mounted(disk) as root:
            for path in files:
                target = root / path.relative_to(tree)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    @contextmanager
    def _mounted(self, disk: Path) -> Iterator[Path]:
        point = disk.parent / "mounted"
        point.mkdir()
        # Inode tables zeroed later would be preallocated blocks again, see _make_filesystem.
        options = f"loop,noinit_itable,offset={PARTITION_OFFSET}"
        self._runner.run(Command(("mount", "-o", options, str(disk), str(point))))
        try:
            yield point
        finally:
            self._runner.run(Command(("umount", str(point))))
            point.rmdir()


def make_tree_of_noise(folder: Path, size: int, seed: int) -> None:
    """What only one VM has: eight incompressible files."""
    (folder / "own").mkdir(parents=True)
    rng = np.random.default_rng([seed, 1])
    for number in range(8):
        (folder / "own" / f"{number}").write_bytes(noise(rng, size // 8))


def master_boot_record(size: int) -> bytes:
    """A first sector with one Linux partition from PARTITION_OFFSET to the end."""
    start = PARTITION_OFFSET // 512
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", start, size // 512 - start)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def scattered(size: int, changed: int) -> list[tuple[int, int]]:
    """`changed` bytes as 1 MiB extents spread evenly over a disk of `size` bytes."""
    count = changed // MIB
    step = size // count // MIB * MIB
    return [(number * step, MIB) for number in range(count)]


def write_extents(disk: Path, size: int, extents: list[tuple[int, int]], seed: int) -> None:
    """Write half-compressible data to the extents of a sparse disk, made if it is absent."""
    rng = np.random.default_rng([SEED, seed])
    disk.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(disk, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, size)
        for offset, length in extents:
            os.pwrite(descriptor, records(rng, length), offset)
    finally:
        os.close(descriptor)
