"""The stat of an ordinary file or folder straight from its one record: the short way of a listing.

Answers None for all that `file_stat.py` must decide (links, streams over several records, Linux's
metadata, anything odd), and else the same as that does, in a third of its time: 100,000 files took
0.95 s the long way.
"""

from __future__ import annotations

import stat
import struct
from typing import Final

from backpoint_fusefs.guest.filesystem import Stat
from backpoint_fusefs.guest.parsers.ntfs.attribute import (
    ATTRIBUTE_LIST,
    COMPRESSED,
    DATA,
    EXTENDED,
    FILE_NAME,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    REPARSE_POINT,
    SPARSE,
    STANDARD_INFORMATION,
)
from backpoint_fusefs.guest.parsers.ntfs.interix import SYSTEM
from backpoint_fusefs.guest.parsers.ntfs.mft import FileRecord

# An attribute's header together with what follows in a resident one.
_HEAD: Final = struct.Struct("<IIBBHHHIH")
_NONRESIDENT: Final = struct.Struct("<QQQQQ")
_NAMESPACE_AT: Final = 65
_TIMES: Final = struct.Struct("<8xQQQI")
_READ_ONLY: Final = 0x1
_DOS_NAME: Final = 2
_EPOCH: Final = 116_444_736_000_000_000
_END: Final = 0xFFFFFFFF
_NOT_PLAIN: Final = (ATTRIBUTE_LIST, REPARSE_POINT, EXTENDED)


def plain_stat(file: FileRecord) -> Stat | None:
    _, _, directory, base, record = file
    content = INDEX_ALLOCATION if directory else DATA
    names = size = occupied = times_at = 0
    at, end = record[20] | record[21] << 8, int.from_bytes(record[24:28], "little")
    last = len(record) - _HEAD.size
    while at <= last:
        kind, length, nonresident, name_length, _, flags, _, value_size, value_at = (
            _HEAD.unpack_from(record, at)
        )
        if kind == _END:
            return _stat(file, names, size, occupied, times_at) if not base else None
        if length < 24 or length % 8 or at + length > end or kind in _NOT_PLAIN:
            return None
        if not nonresident and value_at + value_size > length:
            return None
        if kind == STANDARD_INFORMATION and value_size >= _TIMES.size:
            times_at = at + value_at
        elif kind == FILE_NAME and value_size > _NAMESPACE_AT:
            names += record[at + value_at + _NAMESPACE_AT] != _DOS_NAME
        elif nonresident and kind == content and (directory or not name_length):
            first, _, _, occupied, size = _NONRESIDENT.unpack_from(record, at + 16)
            if flags & (COMPRESSED | SPARSE) or first or length < 64 or size >= 1 << 62:
                return None
        elif kind == INDEX_ROOT or (kind == content and not name_length):
            size, occupied = value_size, -(-value_size // 512) * 512
        at += length
    return None


def _stat(file: FileRecord, names: int, size: int, occupied: int, times_at: int) -> Stat | None:
    modified, changed, accessed, attributes = _TIMES.unpack_from(file.record, times_at)
    if not times_at or (attributes & SYSTEM and not file.directory):
        return None
    if file.directory:
        mode, names = stat.S_IFDIR | 0o755, 1
    else:
        mode = stat.S_IFREG | (0o444 if attributes & _READ_ONLY else 0o644)
    return Stat(
        0,
        file.number,
        mode,
        names,
        0,
        0,
        size,
        occupied,
        (accessed - _EPOCH) * 100,
        (modified - _EPOCH) * 100,
        (changed - _EPOCH) * 100,
        0,
    )
