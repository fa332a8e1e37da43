"""NTFS that Windows left in a state: dirty, with unwritten ends, encrypted, or out of step."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backpoint_fusefs.guest.filesystem import (
    HOLE,
    FileId,
    GuestDamaged,
    GuestUnsupported,
    VolumeFacts,
)
from backpoint_fusefs.guest.parsers.open_filesystem import open_filesystem
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import walk_folder, walk_parser

_RECORD = 1024
_DATA, _VOLUME_INFORMATION = 0x80, 0x70


def _image(path: Path) -> Path:
    make_image(path, "ntfs", 16 << 20)
    with mounted_image(path, "ntfs") as top:
        (top / "file").write_bytes(os.urandom(100_000))
        (top / "small").write_bytes(b"in the record")
    return path


def _record(content: bytes, name: str) -> int:
    """Where the file record with this name lies, the table's copy left out."""
    wanted = name.encode("utf-16-le")
    places = []
    at = content.find(wanted)
    while at >= 0:
        start = at // _RECORD * _RECORD
        if content[start : start + 4] == b"FILE":
            places.append(start)
        at = content.find(wanted, at + 1)
    # The table begins before the middle of the volume, where its copy is.
    return min(places)


def _attributes(content: bytes, record: int) -> Iterator[tuple[int, int]]:
    """(kind, where it lies) of a file record's attributes."""
    (at,) = struct.unpack_from("<H", content, record + 20)
    while True:
        kind, length = struct.unpack_from("<II", content, record + at)
        if kind == 0xFFFFFFFF:
            return
        yield kind, record + at
        at += length


def _patch(path: Path, name: str, kind: int, offset: int, value: bytes) -> None:
    """value: at `offset` of the file's first attribute of that kind."""
    content = path.read_bytes()
    place = dict(reversed(list(_attributes(content, _record(content, name)))))[kind] + offset
    assert place % 512 + len(value) <= 510, "a sector's mark would be changed"
    with path.open("r+b") as file:
        file.seek(place)
        file.write(value)


def _facts(path: Path) -> VolumeFacts:
    with closing(FileImage(path)) as image:
        return open_filesystem(image, "ntfs").facts


def _files(path: Path, image: FileImage) -> dict[bytes, FileId]:
    filesystem = open_filesystem(image, "ntfs")
    return {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}


def test_a_volume_left_in_order_says_nothing(tmp_path: Path) -> None:
    assert _facts(_image(tmp_path / "image")) == VolumeFacts()


def test_the_dirty_mark_is_told(tmp_path: Path) -> None:
    path = _image(tmp_path / "image")
    _patch(path, "$Volume", _VOLUME_INFORMATION, 24 + 10, b"\x01\x00")
    assert "dirty" in _facts(path).recovery or "damaged" in _facts(path).recovery


@pytest.mark.parametrize(
    ("in_use", "flags", "pending"), [(0, 0, True), (0, 2, False), (0xFFFF, 0, False)]
)
def test_a_log_in_use_is_told(tmp_path: Path, in_use: int, flags: int, pending: bool) -> None:
    """By the newer of its two restart pages, unless it has no client or says it is clean."""
    path = _image(tmp_path / "image")
    content = path.read_bytes()
    record = _record(content, "$LogFile")
    data = dict(_attributes(content, record))[_DATA]
    (pairs,) = struct.unpack_from("<H", content, data + 32)
    head = content[data + pairs]
    size, distance = head & 15, head >> 4
    start = data + pairs + 1 + size
    log = int.from_bytes(content[start : start + distance], "little") * 4096
    with path.open("r+b") as file:
        for number, (position, client, flag) in enumerate([(7, 0xFFFF, 2), (8, in_use, flags)]):
            page = bytearray(4096)
            struct.pack_into("<4sHHQIIHHH", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, 48, 1, 1)
            struct.pack_into("<QHHHH", page, 48, position, 1, 0xFFFF, client, flag)
            page[30:32] = b"\x01\x00"
            for end in range(510, 4096, 512):
                page[end : end + 2] = b"\x01\x00"
            file.seek(log + number * 4096)
            file.write(page)
    assert bool(_facts(path).recovery) == pending


def test_bytes_that_were_never_written_are_zeros(tmp_path: Path) -> None:
    """Beyond the initialized size the clusters hold leftovers, which ntfs-3g hides too."""
    path = _image(tmp_path / "image")
    _patch(path, "file", _DATA, 56, struct.pack("<Q", 30_001))
    with mounted_image(path, "ntfs", read_only=True) as top:
        expected = walk_folder(top)[b"file"].content
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        assert walk_parser(filesystem, image)[b"file"].content == expected
        last = list(filesystem.extents(_files(path, image)[b"file"]))[-1]
        assert (last.offset, last.length, last.at) == (30_001, 69_999, HOLE)


def test_encrypted_content_is_refused(tmp_path: Path) -> None:
    path = _image(tmp_path / "image")
    _patch(path, "file", _DATA, 12, struct.pack("<H", 0x4000))
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        with pytest.raises(GuestUnsupported, match="encrypted"):
            filesystem.read(_files(path, image)[b"file"], 0, 10)


def test_a_name_of_an_earlier_file_is_refused(tmp_path: Path) -> None:
    """Its record has been used for another since: that one's content is not shown under it."""
    path = _image(tmp_path / "image")
    content = path.read_bytes()
    record = _record(content, "small")
    with path.open("r+b") as file:
        file.seek(record + 16)
        file.write(struct.pack("<H", struct.unpack_from("<H", content, record + 16)[0] + 1))
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        files = {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}
        assert filesystem.stats([files[b"small"], files[b"file"]])[0] is None
        with pytest.raises(GuestDamaged, match="earlier file"):
            filesystem.stat(files[b"small"])


def test_a_torn_record_is_refused(tmp_path: Path) -> None:
    """Its sectors' marks differ: half of it is from another time."""
    path = _image(tmp_path / "image")
    record = _record(path.read_bytes(), "small")
    with path.open("r+b") as file:
        file.seek(record + 1022)
        file.write(b"\xee\xee")
    with closing(FileImage(path)) as image:
        filesystem = open_filesystem(image, "ntfs")
        files = {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}
        with pytest.raises(GuestDamaged, match="no valid record"):
            filesystem.stat(files[b"small"])


def test_garbage_is_refused(tmp_path: Path) -> None:
    """Also cut volumes, and what is no filesystem at all."""
    path = _image(tmp_path / "image")
    content = path.read_bytes()
    for wrong in (bytes(1 << 20), os.urandom(1 << 20), content[:512], content[: 8 << 20], b""):
        path.write_bytes(wrong)
        with closing(FileImage(path)) as image, pytest.raises(GuestDamaged):
            open_filesystem(image, "ntfs")
