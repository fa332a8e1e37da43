"""The attributes of one NTFS record, as they stand there: headers checked, values cut out.

Knows one record; what is spread over several is put together in `ntfs_file.py`. Format: "attribute
record header" (Microsoft; ntfs-3g `layout.h`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged

STANDARD_INFORMATION: Final = 0x10
ATTRIBUTE_LIST: Final = 0x20
FILE_NAME: Final = 0x30
VOLUME_INFORMATION: Final = 0x70
DATA: Final = 0x80
INDEX_ROOT: Final = 0x90
INDEX_ALLOCATION: Final = 0xA0
BITMAP: Final = 0xB0
REPARSE_POINT: Final = 0xC0
EXTENDED: Final = 0xE0

COMPRESSED: Final = 0x0001
ENCRYPTED: Final = 0x4000
SPARSE: Final = 0x8000

_HEAD: Final = struct.Struct("<IIBBHHH")
_RESIDENT: Final = struct.Struct("<IH")
_NONRESIDENT: Final = struct.Struct("<QQHB5xQQQ")
_U64: Final = struct.Struct("<Q")
_U64_MAX: Final = (1 << 64) - 1
_TOO_MANY: Final = 1 << 62

_Head = tuple[int, bytes, int, int]


class Attribute(NamedTuple):
    """name: UTF-16. value: of a resident one, else None and its clusters follow.

    vcn, end: the clusters that `pairs` of this record map. occupied: bytes on disk. The sizes are
    right only where vcn is 0.
    """

    kind: int
    name: bytes
    flags: int
    number: int
    value: bytes | None
    size: int
    occupied: int
    initialized: int = 0
    vcn: int = 0
    end: int = 0
    unit: int = 0
    pairs: bytes = b""


def attributes(record: bytes) -> Iterator[Attribute]:
    """Of a FILE record whose sector marks are taken out."""
    at, in_use = record[20] | record[21] << 8, int.from_bytes(record[24:28], "little")
    if in_use > len(record):
        raise GuestDamaged(f"a record of {len(record)} bytes uses {in_use}")
    while at + 4 <= in_use:
        if record[at : at + 4] == b"\xff\xff\xff\xff":
            return
        if at + 24 > in_use:
            break
        kind, length, nonresident, name_length, name_at, flags, number = _HEAD.unpack_from(
            record, at
        )
        if length < 24 or length % 8 or at + length > in_use:
            break
        if name_length and name_at + 2 * name_length > length:
            break
        name = record[at + name_at : at + name_at + 2 * name_length] if name_length else b""
        cut = _nonresident if nonresident else _resident
        yield cut(record, at, length, (kind, name, flags, number))
        at += length
    raise GuestDamaged("a record's attributes do not end where they should")


def _resident(record: bytes, at: int, length: int, head: _Head) -> Attribute:
    size, value_at = _RESIDENT.unpack_from(record, at + 16)
    if value_at + size > length:
        raise GuestDamaged("an attribute's value reaches out of its record")
    value = record[at + value_at : at + value_at + size]
    return Attribute(*head, value, size, size, size)


def _nonresident(record: bytes, at: int, length: int, head: _Head) -> Attribute:
    if length < 64:
        raise GuestDamaged("an attribute's header is cut off")
    fields = _NONRESIDENT.unpack_from(record, at + 16)
    first, last, pairs_at, unit, occupied, size, initialized = fields
    # Without any cluster the last one is -1.
    end = last + 1 & _U64_MAX
    if first > end or end >= _TOO_MANY or size >= _TOO_MANY or unit > 8 or pairs_at > length:
        raise GuestDamaged("an attribute's header is impossible")
    if head[2] & (COMPRESSED | SPARSE) and first == 0 and length >= 72 and pairs_at >= 72:
        (occupied,) = _U64.unpack_from(record, at + 64)
    pairs = record[at + pairs_at : at + length]
    valid = min(initialized, size)
    return Attribute(*head, None, size, occupied, valid, first, end, unit, pairs)
