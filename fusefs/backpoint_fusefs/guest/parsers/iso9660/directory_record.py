"""One record of a folder: a name and where the content is; what Rock Ridge adds is only cut out.

Format: ECMA-119, 9.1.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged

RECORD_MAX: Final = 255
_RECORD: Final = struct.Struct("<BBI4xI4x7sBBB4xB")
_DIRECTORY: Final = 0x02
_ASSOCIATED: Final = 0x04
_MORE_EXTENTS: Final = 0x80


class DirectoryRecord(NamedTuple):
    """block: the content's first. date: in its seven bytes. system_use: Rock Ridge's fields.

    length: of the record itself.
    """

    length: int
    block: int
    size: int
    date: bytes
    flags: int
    interleaved: bool
    name: bytes
    system_use: bytes

    @property
    def directory(self) -> bool:
        return bool(self.flags & _DIRECTORY)

    @property
    def associated(self) -> bool:
        """A resource fork of another file of the same name."""
        return bool(self.flags & _ASSOCIATED)

    @property
    def more_extents(self) -> bool:
        """The file goes on where the next record says."""
        return bool(self.flags & _MORE_EXTENTS)

    @property
    def own(self) -> bool:
        """`.` or `..`"""
        return self.name in (b"\x00", b"\x01")


def read_record(data: bytes, start: int) -> DirectoryRecord:
    if start + _RECORD.size > len(data):
        raise GuestDamaged("a folder's record is cut off")
    length, attributes, block, size, date, flags, unit, gap, name_length = _RECORD.unpack_from(
        data, start
    )
    name_at = start + _RECORD.size
    name_end = name_at + name_length
    if name_end > start + length or start + length > len(data):
        raise GuestDamaged(f"a folder's record of {length} bytes has a name of {name_length}")
    # A name of even length is filled up by a byte.
    use_at = name_end + (name_length + 1) % 2
    return DirectoryRecord(
        length,
        block + attributes,
        size,
        date,
        flags,
        bool(unit or gap),
        data[name_at:name_end],
        data[use_at : start + length],
    )
