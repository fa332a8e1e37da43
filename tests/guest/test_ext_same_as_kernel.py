"""Every file of ext2, ext3 and ext4 is what the kernel shows of it, however mke2fs laid it out."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import FileId, GuestFilesystem
from backpoint_fusefs.guest.parsers.ext.ext_filesystem import open_ext
from guest_disks.tool import run
from guest_trees.abilities import Abilities
from guest_trees.awkward import fill
from guest_trees.disks import Kind, abilities_of, make_image, mounted_image, without_big_files
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_folder, walk_parser

_MIB = 1 << 20

_LAYOUTS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "ext2": ("ext2", ()),
    "no checksums, 32 bits": ("ext4", ("-O", "^metadata_csum,^64bit,^has_journal")),
    "no types in folders, no hash trees": ("ext4", ("-O", "^filetype,^dir_index,uninit_bg")),
    "block maps": ("ext4", ("-O", "^extents,^64bit")),
    "inline data": ("ext4", ("-O", "inline_data", "-I", "1024")),
    "clusters": ("ext4", ("-O", "bigalloc", "-C", "65536")),
    "meta groups": ("ext4", ("-O", "^flex_bg,meta_bg,^resize_inode", "-g", "8192")),
    "two backups": ("ext4", ("-O", "sparse_super2,meta_bg,^resize_inode", "-g", "8192")),
    "newer features": (
        "ext4",
        ("-O", "large_dir,metadata_csum_seed,orphan_file,verity,encrypt,ea_inode"),
    ),
}
_SMALL_BLOCKS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "ext2": ("ext2", ("-b", "1024")),
    "ext3": ("ext3", ("-b", "1024")),
    "ext4": ("ext4", ("-b", "1024")),
    "clusters": ("ext4", ("-b", "1024", "-O", "bigalloc")),
    "meta groups": ("ext4", ("-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "1024")),
}
_OLD_INODES: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "of 128 bytes": ("ext3", ("-I", "128")),
    "of revision 0": ("ext2", ("-r", "0")),
}


def _assert_same(path: Path, kind: Kind) -> None:
    with mounted_image(path, kind, read_only=True) as top:
        expected = walk_folder(top)
        allocated = {path: os.lstat(os.fsencode(top) + b"/" + path).st_blocks for path in expected}
    with closing(FileImage(path)) as image:
        filesystem = open_ext(image)
        assert walk_parser(filesystem, image) == expected
        assert _allocated(filesystem) == allocated


def _allocated(filesystem: GuestFilesystem) -> dict[bytes, int]:
    """In units of 512 bytes, by path."""
    found, waiting = {}, [(b"", filesystem.root)]
    while waiting:
        path, file = waiting.pop()
        seen = filesystem.stat(file)
        found[path] = seen.allocated // 512
        if stat.S_ISDIR(seen.mode):
            below = path + b"/" if path else b""
            waiting += [(below + name, child) for name, child in filesystem.entries(file)]
    return found


def _filled(path: Path, kind: Kind, options: Sequence[str], abilities: Abilities) -> None:
    make_image(path, kind, 192 * _MIB, options)
    with mounted_image(path, kind) as top:
        fill(top, abilities)


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_every_awkward_case(tmp_path: Path, kind: Kind) -> None:
    """A tree of all cases, with a 5 GiB sparse file and 10,000 links."""
    path = tmp_path / "image"
    _filled(path, kind, (), abilities_of(kind))
    _assert_same(path, kind)


@pytest.mark.parametrize(("kind", "options"), _LAYOUTS.values(), ids=_LAYOUTS.keys())
def test_every_layout(tmp_path: Path, kind: Kind, options: Sequence[str]) -> None:
    """Maps, groups, checksums and places of attributes are the kernel's."""
    path = tmp_path / "image"
    _filled(path, kind, options, without_big_files(abilities_of(kind)))
    _assert_same(path, kind)


@pytest.mark.parametrize(("kind", "options"), _SMALL_BLOCKS.values(), ids=_SMALL_BLOCKS.keys())
def test_small_blocks(tmp_path: Path, kind: Kind, options: Sequence[str]) -> None:
    """Blocks of 1 KiB, in which the superblock has a block of its own."""
    path = tmp_path / "image"
    _filled(path, kind, options, without_big_files(abilities_of(kind, 1024)))
    _assert_same(path, kind)


@pytest.mark.parametrize(("kind", "options"), _OLD_INODES.values(), ids=_OLD_INODES.keys())
def test_old_inodes(tmp_path: Path, kind: Kind, options: Sequence[str]) -> None:
    """Inodes with times of whole seconds and no room for attributes."""
    path = tmp_path / "image"
    abilities = without_big_files(abilities_of(kind))
    _filled(path, kind, options, replace(abilities, long_times=False, time_step_ns=10**9))
    _assert_same(path, kind)


def test_all_levels_of_a_block_map(tmp_path: Path) -> None:
    """A sparse file with blocks on both sides of each border between levels of the map."""
    path = tmp_path / "image"
    make_image(path, "ext3", 64 * _MIB, ("-b", "1024"))
    triple = 12 + 256 + 256**2
    borders = [12, 12 + 256, 12 + 256 + 256, triple, triple + 256, triple + 256**2]
    with mounted_image(path, "ext3") as top:
        with (top / "file").open("wb") as file:
            for border in borders:
                file.seek((border - 2) * 1024)
                file.write(os.urandom(4 * 1024 + 7))
        os.truncate(top / "file", (triple + 256**2 + 1000) * 1024 + 5)
    _assert_same(path, "ext3")


def test_a_deep_extent_tree(tmp_path: Path) -> None:
    """2,000 extents, some unwritten, some behind holes, need two levels of nodes of 1 KiB."""
    path = tmp_path / "image"
    make_image(path, "ext4", 64 * _MIB, ("-b", "1024"))
    with mounted_image(path, "ext4") as top, (top / "file").open("wb") as file:
        for number in range(2000):
            os.posix_fallocate(file.fileno(), number * 4096 + 1024, 2048)
            os.pwrite(file.fileno(), os.urandom(1000), number * 4096 + 1024 * (number % 3))
        os.posix_fallocate(file.fileno(), 2100 * 4096, 300_000)
    _assert_same(path, "ext4")


def test_content_in_inodes(tmp_path: Path) -> None:
    """Files, links and folders of all sizes around what fits into an inode."""
    path = tmp_path / "image"
    make_image(path, "ext4", 32 * _MIB, ("-O", "inline_data", "-I", "512"))
    with mounted_image(path, "ext4") as top:
        for size in range(0, 420, 7):
            (top / f"file {size}").write_bytes(os.urandom(size))
            os.symlink("t" * (size // 2 + 1), top / f"link {size}")
            (top / f"folder {size}").mkdir()
            for number in range(size // 16):
                (top / f"folder {size}" / f"{number}").write_bytes(b"below")
        for size in (59, 60, 61, 150, 300):
            (top / f"cut {size}").write_bytes(os.urandom(350))
            os.truncate(top / f"cut {size}", size)
            os.setxattr(top / f"cut {size}", "user.beside", b"v" * 20)
    _assert_same(path, "ext4")


def test_large_attributes(tmp_path: Path) -> None:
    """Values up to the largest that Linux takes lie in inodes of their own; equal ones share it."""
    path = tmp_path / "image"
    make_image(path, "ext4", 32 * _MIB, ("-O", "ea_inode"))
    with mounted_image(path, "ext4") as top:
        for name in ("one", "two"):
            (top / name).write_bytes(b"")
            for size in (0, 1, 2047, 2048, 4096, 30_000, 65_536):
                value = bytes([size % 251]) * size
                os.setxattr(top / name, f"user.{size}", value)
    _assert_same(path, "ext4")


def test_device_numbers(tmp_path: Path) -> None:
    """Both ways to keep a device's number, up to the largest."""
    path = tmp_path / "image"
    make_image(path, "ext4", 8 * _MIB, ("-O", "^has_journal"))
    with mounted_image(path, "ext4") as top:
        for major, minor in ((0, 0), (1, 3), (255, 255), (256, 0), (8, 256), (4095, 0xFFFFF)):
            for kind in (stat.S_IFCHR, stat.S_IFBLK):
                os.mknod(top / f"{kind} {major} {minor}", kind | 0o600, os.makedev(major, minor))
    _assert_same(path, "ext4")


@pytest.mark.parametrize("options", [("-b", "65536"), ("-O", "casefold")])
def test_what_the_kernel_here_does_not_mount(tmp_path: Path, options: Sequence[str]) -> None:
    """Blocks larger than a page, and folders that ignore case: filled by mke2fs instead."""
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    for number in range(900):
        (source / "folder" / f"{number}".zfill(60)).write_bytes(os.urandom(number))
    (source / "link").symlink_to("long/" * 80)
    path = tmp_path / "image"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", source, *options, path, "128M")
    expected = walk_folder(source)
    with closing(FileImage(path)) as image:
        found = walk_parser(open_ext(image), image)
    assert found.pop(b"lost+found").size == 0
    assert found.keys() == expected.keys()
    for name, seen in found.items():
        assert (seen.mode, seen.content) == (expected[name].mode, expected[name].content)


def test_the_filesystems_own_inodes_are_hidden(tmp_path: Path) -> None:
    """No name leads to the journal or its like, and asking for their numbers is refused."""
    path = tmp_path / "image"
    make_image(path, "ext4", 16 * _MIB)
    with closing(FileImage(path)) as image:
        filesystem = open_ext(image)
        assert [entry.name for entry in filesystem.entries(filesystem.root)] == [b"lost+found"]
        hidden = [FileId(0, ino) for ino in (*range(-1, 2), *range(3, 11), 1 << 31)]
        assert filesystem.stats(hidden) == [None] * len(hidden)
