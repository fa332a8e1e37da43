"""Every file of a btrfs is what the kernel shows of it, however mkfs was told to lay it out."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.parsers.btrfs.btrfs_filesystem import open_btrfs
from guest_disks.tool import run
from guest_trees.awkward import fill
from guest_trees.disks import abilities_of, make_image, mounted_image, without_big_files
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_folder, walk_parser

_MIB = 1 << 20

# The crc32c of each pair is one, so both names are in one item.
_ONE_HASH = (
    (b"user.a60ac2d3a3", b"user.259214b786"),
    (b"user.4e845ca5ee", b"user.8971a0c612"),
)

_LAYOUTS: dict[str, tuple[str, ...]] = {
    "single, sha256": ("-m", "single", "-d", "single", "--csum", "sha256"),
    "dup, blake2": ("-m", "dup", "-d", "dup", "--csum", "blake2"),
    "one stripe, xxhash": ("-m", "raid0", "-d", "raid0", "--csum", "xxhash"),
    "mixed": ("--mixed",),
    "small nodes, quotas": ("-n", "4096", "-R", "quota"),
    "large nodes, explicit holes": ("-n", "65536", "-O", "^no-holes"),
}
# A link's target is inline in a node, of 4 KiB in some layouts.
_ABILITIES = replace(without_big_files(abilities_of("btrfs")), symlink_max=3_900)


def _assert_same(path: Path) -> None:
    with mounted_image(path, "btrfs", read_only=True, options=["subvolid=5"]) as top:
        expected = walk_folder(top)
    with closing(FileImage(path)) as image:
        assert walk_parser(open_btrfs(image), image) == expected


def test_every_awkward_case(tmp_path: Path) -> None:
    """A tree of all cases, with a 5 GiB sparse file and 10,000 links."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 512 * _MIB)
    with mounted_image(path, "btrfs") as top:
        fill(top, abilities_of("btrfs"))
    _assert_same(path)


@pytest.mark.parametrize("options", _LAYOUTS.values(), ids=_LAYOUTS.keys())
def test_every_layout(tmp_path: Path, options: Sequence[str]) -> None:
    """Chunk profiles, node sizes, checksums and holes are the kernel's."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 320 * _MIB, options)
    with mounted_image(path, "btrfs") as top:
        fill(top, _ABILITIES)
    _assert_same(path)


def test_moved_metadata_uuid(tmp_path: Path) -> None:
    """A filesystem whose UUID was changed keeps the old one in its nodes."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 * _MIB)
    with mounted_image(path, "btrfs") as top:
        (top / "file").write_bytes(b"content")
    run("btrfstune", "-f", "-m", path)
    _assert_same(path)


def test_names_with_one_hash(tmp_path: Path) -> None:
    """Attributes and entries whose names share a hash are all there."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 * _MIB)
    with mounted_image(path, "btrfs") as top:
        (top / "file").touch()
        for number, name in enumerate(name for pair in _ONE_HASH for name in pair):
            os.setxattr(top / "file", name, b"value %d" % number)
            Path(os.fsdecode(os.path.join(os.fsencode(top), name))).write_bytes(name)
    _assert_same(path)
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        assert {entry.name for entry in filesystem.entries(filesystem.root)} == {
            b"file",
            *(name for pair in _ONE_HASH for name in pair),
        }


def test_allocated_bytes_and_devices(tmp_path: Path) -> None:
    """Blocks as the kernel counts them, and device numbers of the full width."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 128 * _MIB)
    with mounted_image(path, "btrfs") as top:
        (top / "small").write_bytes(b"x" * 100)
        (top / "odd").write_bytes(os.urandom(10_001))
        os.truncate(top / "odd", 9_999)
        with (top / "reserved").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 100_000)
        os.truncate(top / "reserved", 200_000)
        (top / "folder").mkdir()
        os.mknod(top / "device", stat.S_IFBLK | 0o600, os.makedev(4095, 1_048_575))
        os.mknod(top / "other", stat.S_IFCHR | 0o600, os.makedev(7, 256))
    with mounted_image(path, "btrfs", read_only=True) as top:
        expected = {os.fsencode(file.name): file.lstat() for file in top.iterdir()}
    assert len({one.st_blocks for one in expected.values()}) > 3
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        shown = {
            entry.name: filesystem.stat(entry.file) for entry in filesystem.entries(filesystem.root)
        }
    assert {name: (one.allocated, one.rdev, one.size) for name, one in shown.items()} == {
        name: (one.st_blocks * 512, one.st_rdev, one.st_size) for name, one in expected.items()
    }


def test_a_large_folder_takes_few_reads(tmp_path: Path) -> None:
    """Nodes of a folder and of its inodes are fetched in runs, not one by one."""
    path = tmp_path / "image"
    make_image(path, "btrfs", 256 * _MIB)
    count = 20_000
    with mounted_image(path, "btrfs") as top:
        (top / "large").mkdir()
        for number in range(count):
            (top / "large" / f"file {number}").touch()
    with closing(FileImage(path)) as image:
        filesystem = open_btrfs(image)
        (large,) = filesystem.entries(filesystem.root)
        before = image.reads
        entries = list(filesystem.entries(large.file))
        found = filesystem.stats([entry.file for entry in entries])
        reads = image.reads - before
        nodes = (image.bytes_read // (16 << 10)) or 1
    assert [entry.name for entry in entries] == [b"file %d" % number for number in range(count)]
    assert [one.file for one in found if one is not None] == [entry.file for entry in entries]
    assert reads < nodes / 3
