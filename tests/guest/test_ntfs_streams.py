"""Alternate streams of NTFS: small ones are attributes, large ones files where one asks for it."""

from __future__ import annotations

import os
import random
from contextlib import closing
from pathlib import Path

from backpoint_fusefs.guest.filesystem import FileId, GuestFilesystem, check_extents
from backpoint_fusefs.guest.parsers.open_filesystem import open_filesystem
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_parser

_MIB = 1 << 20
_LARGE = random.Random(3).randbytes(_MIB + 5)
_LIMIT = b"l" * 65_536


def _image(path: Path) -> Path:
    make_image(path, "ntfs", 32 * _MIB)
    with mounted_image(path, "ntfs", options=["streams_interface=windows"]) as top:
        (top / "folder").mkdir()
        for name in ("file", "folder/other", "folder"):
            if name != "folder":
                (top / name).write_bytes(b"content")
            (top / f"{name}:small").write_bytes(b"small")
            (top / f"{name}:große 😀").write_bytes(b"")
        (top / "file:large").write_bytes(_LARGE)
        (top / "folder:large").write_bytes(_LARGE[::-1])
        (top / "file:at the limit").write_bytes(_LIMIT)
        (top / "file:just larger").write_bytes(_LIMIT + b"l")
        os.link(top / "file", top / "folder" / "link")
    return path


def _names(filesystem: GuestFilesystem, folder: FileId) -> dict[bytes, FileId]:
    return {entry.name: entry.file for entry in filesystem.entries(folder)}


def test_small_streams_are_attributes(tmp_path: Path) -> None:
    """Up to 64 KiB, also of folders; and large ones nowhere, unless asked for."""
    with closing(FileImage(_image(tmp_path / "image"))) as image:
        found = walk_parser(open_filesystem(image, "ntfs"), image)
    empty = ("user.große 😀".encode(), b"")
    small = (b"user.small", b"small")
    assert found.keys() == {b"", b"file", b"folder", b"folder/other", b"folder/link"}
    assert dict(found[b"file"].xattrs) == dict([empty, small, (b"user.at the limit", _LIMIT)])
    assert dict(found[b"folder"].xattrs) == dict([empty, small])
    assert found[b"folder/link"].links == (b"file", b"folder/link")


def test_large_streams_are_files_where_asked(tmp_path: Path) -> None:
    """Beside every name of their file, the same file each time."""
    with closing(FileImage(_image(tmp_path / "image"))) as image:
        filesystem = open_filesystem(image, "ntfs", streams=True)
        names = _names(filesystem, filesystem.root)
        below = _names(filesystem, names[b"folder"])
        large, just_larger = b"file:large", b"file:just larger"
        assert names.keys() == {b"file", b"folder", large, just_larger, b"folder:large"}
        assert below.keys() == {b"other", b"link", b"link:large", b"link:just larger"}
        assert below[b"link:large"] == names[large]
        found = walk_parser(filesystem, image)
        assert found[large].size == len(_LARGE)
        assert found[large].mode == 0o100644
        assert found[large].mtime_ns == found[b"file"].mtime_ns
        assert filesystem.read(names[large], 0, 2 * _MIB) == _LARGE
        assert filesystem.read(names[b"folder:large"], 0, 2 * _MIB) == _LARGE[::-1]
        assert filesystem.read(names[just_larger], 65_530, 100) == b"l" * 7
        extents = check_extents(filesystem.extents(names[large]), len(_LARGE), image.size)
        assert all(extent.at >= 0 for extent in extents)


def test_attributes_of_a_file_are_bounded(tmp_path: Path) -> None:
    """No more than 1 MiB of them together."""
    path = tmp_path / "image"
    make_image(path, "ntfs", 32 * _MIB)
    with mounted_image(path, "ntfs") as top:
        (top / "file").touch()
        for number in range(30):
            os.setxattr(top / "file", f"user.{number:02}", _LIMIT[:60_000])
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        (entry,) = filesystem.entries(filesystem.root)
        found = filesystem.xattrs(entry.file)
    assert 10 < len(found) <= _MIB // 60_000
