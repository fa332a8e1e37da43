"""Folders of exFAT: sets of entries: a file, its content, and its name in pieces.

Format: "exFAT file system specification" (Microsoft 2019), sections 6 and 7.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.fat.dos_time import dos_time_ns
from backpoint_fusefs.guest.parsers.fat.fat_file import FatFile, FolderPiece
from backpoint_fusefs.guest.parsers.utf16_name import name_bytes

_SIZE: Final = 32
_FILE: Final = 0x85
_CONTENT: Final = 0xC0
_NAME: Final = 0xC1
_IN_USE: Final = 0x80
_OPTIONAL: Final = 0x20
_SET_MAX: Final = 19
_HEAD: Final = struct.Struct("<BBHHxxIIIBBBBB")
_STREAM: Final = struct.Struct("<BBxBxxxxQ4xIQ")
_CONTIGUOUS: Final = 0x02

FollowingPlaces = Callable[[int], list[int]]
"""Where the bytes may be that follow those before this place in a folder."""


class ExfatFolder:
    """following: asked where a set's entries are not beside each other; read: the volume."""

    folder_size_max = 256 << 20

    def __init__(self, read: Callable[[int, int], bytes], following: FollowingPlaces) -> None:
        self._read = read
        self._following = following

    def names(self, pieces: Iterable[FolderPiece]) -> Iterator[tuple[bytes, int]]:
        entries = _entries(pieces)
        for at, data, start in entries:
            kind = data[start]
            if kind == 0:
                return
            if kind != _FILE:
                # Volume label, bitmap and such, or no longer in use. Unknown and vital: stop.
                if kind & _IN_USE and not kind & _OPTIONAL and kind not in (0x81, 0x82, 0x83):
                    raise GuestDamaged(f"a folder has an entry of the unknown kind {kind:#x}")
                continue
            yield _set_name(entries, data[start + 1]), at

    def file(self, data: bytes, start: int, at: int) -> FatFile:
        if data[start] != _FILE:
            raise GuestDamaged(f"there is no file at byte {at}")
        head = data[start : start + _SIZE]
        stream = data[start + _SIZE : start + 2 * _SIZE]
        places = self._following(at + _SIZE)
        if places != [at + _SIZE]:
            stream = self._elsewhere(head, places)
        if len(stream) < _SIZE or stream[0] != _CONTENT:
            raise GuestDamaged(f"the file at byte {at} has no content entry")
        _, _, _, attributes, _, modified, accessed, _, hundredths, _, zone, access_zone = (
            _HEAD.unpack_from(head)
        )
        _, flags, _, valid, first, size = _STREAM.unpack_from(stream)
        if size >= 1 << 62 or valid > size:
            raise GuestDamaged(f"the file at byte {at} has impossible sizes")
        return FatFile(
            attributes,
            size,
            valid,
            first,
            bool(flags & _CONTIGUOUS),
            dos_time_ns(accessed >> 16, accessed & 0xFFFF, 0, access_zone),
            dos_time_ns(modified >> 16, modified & 0xFFFF, hundredths, zone),
        )

    def _elsewhere(self, head: bytes, places: list[int]) -> bytes:
        """The second entry of a set that a cluster's end cuts: a folder without chain goes on in
        the next cluster, another where the table says; which it is, the set's checksum tells."""
        rest = head[1] * _SIZE
        for place in places:
            found = self._read(place, rest)
            if _checksum(head + found) == int.from_bytes(head[2:4], "little"):
                return found[:_SIZE]
        raise GuestDamaged("a file's entries are torn apart")


def _entries(pieces: Iterable[FolderPiece]) -> Iterator[tuple[int, bytes, int]]:
    for at, data in pieces:
        for start in range(0, len(data) - _SIZE + 1, _SIZE):
            yield at + start, data, start


def _set_name(entries: Iterator[tuple[int, bytes, int]], count: int) -> bytes:
    """Of the `count` entries that come next."""
    name, length = b"", 0
    for number in range(count):
        _, data, start = next(entries, (0, b"\0", 0))
        kind = data[start]
        if number == 0 and kind == _CONTENT:
            length = data[start + 3] * 2
        elif number and kind == _NAME:
            name += data[start + 2 : start + _SIZE]
        elif not number or kind & (_IN_USE | _OPTIONAL | 0x40) != _IN_USE | _OPTIONAL | 0x40:
            raise GuestDamaged(f"a file's entries are interrupted by one of kind {kind:#x}")
    if not 0 < length <= len(name) or count >= _SET_MAX:
        raise GuestDamaged("a file has no name")
    return name_bytes(name[:length])


def _checksum(entries: bytes) -> int:
    total = 0
    for index, byte in enumerate(entries):
        if index not in (2, 3):
            total = (total << 15 | total >> 1) + byte & 0xFFFF
    return total
