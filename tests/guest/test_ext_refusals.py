"""What of an ext filesystem cannot be shown rightly is refused, and nothing else with it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import (
    FileId,
    GuestDamaged,
    GuestFilesystem,
    GuestUnsupported,
)
from backpoint_fusefs.guest.parsers.ext.ext_filesystem import open_ext
from guest_disks.tool import run
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage

_MIB = 1 << 20
_BLOCK = 4096


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """With a file of three blocks, a link, a folder of 500 files, and attributes in a block."""
    path = tmp_path / "image"
    make_image(path, "ext4", 32 * _MIB)
    with mounted_image(path, "ext4") as top:
        (top / "file").write_bytes(b"f" * 9_000)
        os.setxattr(top / "file", "user.large", os.urandom(3_000))
        os.symlink("long/" * 100, top / "link")
        (top / "folder").mkdir()
        for number in range(500):
            (top / "folder" / f"{number}".zfill(50)).write_bytes(b"")
        with (top / "pieces").open("wb") as file:
            for number in range(10):
                os.pwrite(file.fileno(), b"piece", number * 3 * _BLOCK)
    return path


def _debugfs(path: Path, request: str) -> str:
    return run("debugfs", "-w", "-R", request, path)


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    assert found, said
    return int(found[1], 0)


def _inode_at(path: Path) -> int:
    """The byte in the image of the file's inode: of its time of change."""
    said = _debugfs(path, "imap /file")
    block, offset = _number(r"at block (\d+)", said), _number(r"offset (0x\w+)", said)
    return block * _BLOCK + offset + 0x10


def _attributes_at(path: Path) -> int:
    return _number(r"File ACL: (\d+)", _debugfs(path, "stat /file")) * _BLOCK + 3_500


def _names_at(path: Path) -> int:
    return int(_debugfs(path, "bmap /folder 3")) * _BLOCK + 100


def _extents_at(path: Path) -> int:
    """In the only node besides the inode."""
    return _number(r"\(ETB0\):(\d+)", _debugfs(path, "stat /pieces")) * _BLOCK + 30


def _by_name(filesystem: GuestFilesystem) -> dict[bytes, FileId]:
    return {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}


def _whole(filesystem: GuestFilesystem, file: FileId) -> object:
    """All that can be asked of one file."""
    found = filesystem.stat(file)
    asked: list[object] = [found, filesystem.xattrs(file)]
    kind = found.mode & 0xF000
    if kind == 0x8000:
        asked += [list(filesystem.extents(file)), filesystem.read(file, 0, 10)]
    elif kind == 0xA000:
        asked.append(filesystem.readlink(file))
    elif kind == 0x4000:
        asked.append(list(filesystem.entries(file)))
    return asked


@pytest.mark.parametrize(
    ("victim", "place"),
    [
        (b"file", _inode_at),
        (b"file", _attributes_at),
        (b"folder", _names_at),
        (b"pieces", _extents_at),
    ],
)
def test_a_flipped_bit_is_found(image: Path, victim: bytes, place: Callable[[Path], int]) -> None:
    """By the checksums of metadata; all else is shown."""
    _flip(image, place(image))
    with closing(FileImage(image)) as volume:
        filesystem = open_ext(volume)
        files = _by_name(filesystem)
        with pytest.raises(GuestDamaged, match="checksum"):
            _whole(filesystem, files.pop(victim))
        for file in files.values():
            _whole(filesystem, file)


def test_one_damaged_file_among_many(image: Path) -> None:
    """It alone has no stat."""
    _flip(image, _inode_at(image))
    with closing(FileImage(image)) as volume:
        filesystem = open_ext(volume)
        files = _by_name(filesystem)
        found = filesystem.stats(list(files.values()))
        assert [name for name, one in zip(files, found, strict=True) if one is None] == [b"file"]


def test_a_damaged_superblock(image: Path) -> None:
    _flip(image, 1024 + 0x30)
    with closing(FileImage(image)) as volume, pytest.raises(GuestDamaged, match="superblock"):
        open_ext(volume)


def test_a_root_that_is_no_folder(image: Path) -> None:
    """The kernel does not mount it either."""
    _debugfs(image, "set_inode_field <2> mode 0100644")
    with closing(FileImage(image)) as volume, pytest.raises(GuestDamaged, match="root"):
        open_ext(volume)


def test_a_volume_that_is_cut_off(image: Path) -> None:
    """As the kernel, which takes no filesystem that is larger than its device."""
    with closing(FileImage(image, size=31 * _MIB)) as volume, pytest.raises(GuestDamaged):
        open_ext(volume)


@pytest.mark.parametrize(
    ("feature", "name"), [(0x1, "compression"), (0x1000, "dirdata"), (0x80000000, "0x80000000")]
)
def test_an_unknown_feature_is_named(image: Path, feature: int, name: str) -> None:
    _debugfs(image, f"set_super_value feature_incompat {0x2C2 | feature:#x}")
    with closing(FileImage(image)) as volume, pytest.raises(GuestUnsupported, match=name):
        open_ext(volume)


def test_encrypted_files(image: Path) -> None:
    """Their names and content cannot be shown; all else is."""
    for name, flags in (("file", 0x80800), ("folder", 0x81800), ("link", 0x80800)):
        _debugfs(image, f"set_inode_field {name} flags {flags:#x}")
    with closing(FileImage(image)) as volume:
        filesystem = open_ext(volume)
        files = _by_name(filesystem)
        assert None not in filesystem.stats(list(files.values()))
        with pytest.raises(GuestUnsupported, match="encrypted"):
            list(filesystem.entries(files[b"folder"]))
        with pytest.raises(GuestUnsupported, match="encrypted"):
            filesystem.extents(files[b"file"])
        with pytest.raises(GuestUnsupported, match="encrypted"):
            filesystem.read(files[b"file"], 0, 1)
        with pytest.raises(GuestUnsupported, match="encrypted"):
            filesystem.readlink(files[b"link"])
        _whole(filesystem, files[b"pieces"])


def test_bulk_reads_are_few(image: Path) -> None:
    """Names and stats of a folder take a few reads of the volume, not one per file."""
    with closing(FileImage(image)) as volume:
        filesystem = open_ext(volume)
        folder = _by_name(filesystem)[b"folder"]
        before = volume.reads
        found = filesystem.stats([entry.file for entry in filesystem.entries(folder)])
        assert len(found) == 500
        assert volume.reads - before < 10
