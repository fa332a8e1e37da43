"""Folders of FAT12, FAT16 and FAT32: short names, and long ones spread over entries before them.

Format: "FAT32 File System Specification" (Microsoft 2000), "FAT directory structure".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.fat.dos_time import dos_time_ns
from backpoint_fusefs.guest.parsers.fat.fat_file import VOLUME_LABEL, FatFile, FolderPiece
from backpoint_fusefs.guest.parsers.utf16_name import name_bytes

_SIZE: Final = 32
_ENTRY: Final = struct.Struct("<11xBxxxxxxHHHHHI")
_LONG: Final = 0x0F
_LAST_LONG: Final = 0x40
_DELETED: Final = 0xE5
_LOWER_NAME: Final = 0x08
_LOWER_EXTENSION: Final = 0x10


class DosFolder:
    """fat32: first clusters have upper halves, which older DOS used otherwise."""

    folder_size_max = 65536 * _SIZE

    def __init__(self, *, fat32: bool) -> None:
        self._high_mask = 0xFFFF if fat32 else 0

    def names(self, pieces: Iterable[FolderPiece]) -> Iterator[tuple[bytes, int]]:
        long_name = _LongName()
        for at, data in pieces:
            for start in range(0, len(data) - _SIZE + 1, _SIZE):
                first, attributes = data[start], data[start + 11]
                if first == 0:
                    return
                if first == _DELETED:
                    long_name = _LongName()
                elif attributes & 0x3F == _LONG:
                    long_name.add(data[start : start + _SIZE])
                else:
                    if not attributes & VOLUME_LABEL and data[start : start + 11] not in _DOTS:
                        short = data[start : start + _SIZE]
                        yield long_name.of(short) or _short_name(short), at + start
                    long_name = _LongName()

    def file(self, data: bytes, start: int, at: int) -> FatFile:
        attributes, atime, high, time, date, low, size = _ENTRY.unpack_from(data, start)
        if data[start] in (0, _DELETED) or attributes & VOLUME_LABEL:
            raise GuestDamaged(f"there is no file at byte {at}")
        mtime_ns = dos_time_ns(date, time)
        return FatFile(
            attributes,
            size,
            size,
            low | (high & self._high_mask) << 16,
            False,
            dos_time_ns(atime, 0) if atime else mtime_ns,
            mtime_ns,
        )


_DOTS: Final = (b".          ", b"..         ")


class _LongName:
    """The pieces of one long name, which come last piece first."""

    def __init__(self) -> None:
        self._name = b""
        self._checksum = self._next = -1

    def add(self, entry: bytes) -> None:
        order, checksum = entry[0], entry[13]
        part = entry[1:11] + entry[14:26] + entry[28:32]
        if order & _LAST_LONG:
            self._name, self._checksum = part, checksum
            self._next = (order & ~_LAST_LONG) - 1
        elif order == self._next and checksum == self._checksum:
            self._name = part + self._name
            self._next -= 1
        else:
            self._next = -1

    def of(self, short: bytes) -> bytes:
        """The name, if it belongs to this short one: older programs renamed only that."""
        if self._next != 0 or self._checksum != _checksum(short[:11]):
            return b""
        for end in range(0, len(self._name), 2):
            if self._name[end : end + 2] == b"\0\0":
                return name_bytes(self._name[:end])
        return name_bytes(self._name)


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = (total >> 1 | total << 7 & 0xFF) + byte & 0xFF
    return total


def _short_name(entry: bytes) -> bytes:
    """Which code page it is in is not recorded: that of the IBM PC, as Linux takes it too."""
    raw = (b"\xe5" if entry[0] == 0x05 else entry[:1]) + entry[1:11]
    name, extension = raw[:8].decode("cp437").rstrip(" "), raw[8:].decode("cp437").rstrip(" ")
    if entry[12] & _LOWER_NAME:
        name = name.lower()
    if entry[12] & _LOWER_EXTENSION:
        extension = extension.lower()
    whole = f"{name}.{extension}" if extension else name
    return name_bytes(whole.encode("utf-16-le"))
