"""The sound images that fuzzing starts from: small, one for each variety of each filesystem.

Decides their options; where checksums can be left away they are, as a fuzzed block would mostly be
refused for its checksum alone (the others are sealed again, see seals.py).
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from guest_disks.tool import run
from guest_trees.abilities import Abilities
from guest_trees.awkward import fill
from guest_trees.awkward_names import fill_names
from guest_trees.crash_image import crash_image, settle
from guest_trees.disks import Kind, abilities_of, fill_fat, make_image, mounted_image
from guest_trees.writeback import write_back

_MIB: Final = 1 << 20


@dataclass(frozen=True)
class FuzzBase:
    """parser: as `load_parser` names it."""

    parser: str
    make: Callable[[Path], None]


def _small(kind: Kind, block_size: int = 4096) -> Abilities:
    whole = abilities_of(kind, block_size)
    return replace(whole, big_sparse_size=0, many_links=60, many_entries=200)


def _filled(kind: Kind, mib: int, *options: str, block_size: int = 4096) -> FuzzBase:
    def make(path: Path) -> None:
        make_image(path, kind, mib * _MIB, options)
        with mounted_image(path, kind) as root:
            fill(root, _small(kind, block_size))

    return FuzzBase("ext" if kind.startswith("ext") else kind, make)


def _btrfs(path: Path) -> None:
    """With subvolumes, a snapshot, and each way to compress."""
    make_image(path, "btrfs", 192 * _MIB)
    with mounted_image(path, "btrfs") as root:
        fill(root, _small("btrfs"))
        for way in ("zlib", "lzo", "zstd"):
            run("btrfs", "subvolume", "create", root / way)
            run("btrfs", "property", "set", root / way, "compression", way)
            (root / way / "folder").mkdir()
            (root / way / "folder" / "text").write_bytes(b"compress me well, " * 30_000)
            (root / way / "small").write_bytes(b"inline " * 100)
        run("btrfs", "subvolume", "snapshot", "-r", root / "zstd", root / "zlib" / "snapshot")


def _ext4_dirty(path: Path) -> None:
    """With a journal that a crash left full: half of the tree is in it only."""

    def change(root: Path) -> None:
        for name in ("old", "gone", "new"):
            (root / name).mkdir()
        fill(root / "old", _small("ext4"))
        fill(root / "gone", replace(_small("ext4"), many_links=10, many_entries=20))
        settle(root)
        # Blocks of folders that were in the journal and are free again are revoked in it.
        fill_names(root / "new", replace(_small("ext4"), many_entries=50), random.Random(1))
        shutil.rmtree(root / "gone" / "names")
        write_back(root)

    sound = path.with_name(path.name + " sound")
    make_image(sound, "ext4", 80 * _MIB, ["-O", "^metadata_csum", "-N", "4096"])
    crash_image(sound, "ext4", path, change)
    sound.unlink()


def _fat(bits: str, mib: int) -> FuzzBase:
    def make(path: Path) -> None:
        make_image(path, "fat", mib * _MIB, ["-F", bits])
        files = {f"folder {n % 7}/sub{n % 3}/File number {n}.txt": b"x" * n * 90 for n in range(99)}
        files |= {f"{'deep/' * 20}ü語😀.txt": b"deep", "EMPTY": b"", "folder/": b""}
        fill_fat(path, files | {"gone 1.txt": b"gone", "gone 2.txt": b"g" * 9999}, ["gone 1.txt"])

    return FuzzBase(f"fat{bits}", make)


def _iso(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="iso-", dir=path.parent) as name:
        folder = Path(name)
        (folder / "folder" / "Below with a long name").mkdir(parents=True)
        for number in range(50):
            (folder / "folder" / f"File {number}.txt").write_bytes(b"i" * number * 70)
        (folder / "link").symlink_to("folder/File 1.txt")
        run("xorriso", "-as", "mkisofs", "-quiet", "-J", "-R", "-o", path, folder)


BASES: Final[dict[str, FuzzBase]] = {
    "ext4": _filled("ext4", 64, "-O", "^metadata_csum,inline_data", "-N", "4096"),
    "ext4-sums": _filled("ext4", 64, "-N", "4096"),
    "ext4-dirty": FuzzBase("ext", _ext4_dirty),
    "ext3": _filled("ext3", 64, "-N", "4096"),
    "ext2": _filled("ext2", 64, "-b", "1024", "-N", "4096", block_size=1024),
    "xfs": _filled("xfs", 304),
    "btrfs": FuzzBase("btrfs", _btrfs),
    "ntfs": _filled("ntfs", 64),
    "exfat": _filled("exfat", 64),
    "fat12": _fat("12", 8),
    "fat16": _fat("16", 16),
    "fat32": _fat("32", 40),
    "iso9660": FuzzBase("iso9660", _iso),
}
