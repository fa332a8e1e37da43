"""Links and devices as Interix wrote them, and ntfs-3g does by default: small system files.

Format: ntfs-3g `layout.h`, INTX_FILE. Its empty system file for a fifo and its one-byte one for a
socket are not believed: Windows has such files of its own.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged

SYSTEM: Final = 0x4
"""The file attribute that such a file has."""
INTERIX_MAX: Final = 8 + 2 * 4096

_SYMLINK: Final = b"IntxLNK\x01"
_DEVICES: Final = {b"IntxCHR\x00": stat.S_IFCHR, b"IntxBLK\x00": stat.S_IFBLK}
_NUMBERS: Final = struct.Struct("<QQ")


class InterixFile(NamedTuple):
    format: int
    target: bytes = b""
    rdev: int = 0


def read_interix(data: bytes) -> InterixFile | None:
    """data: all of a system file that is not larger than INTERIX_MAX."""
    magic, body = data[:8], data[8:]
    if magic == _SYMLINK:
        target = body[: len(body) & ~1].decode("utf-16-le", "surrogatepass")
        if not target or "\0" in target:
            raise GuestDamaged("an Interix link has no target")
        return InterixFile(stat.S_IFLNK, target.encode("utf-8", "surrogatepass"))
    if magic in _DEVICES and len(body) >= _NUMBERS.size:
        major, minor = _NUMBERS.unpack_from(body)
        if max(major, minor) >= 1 << 20:
            raise GuestDamaged(f"a device has the number {major}:{minor}")
        return InterixFile(_DEVICES[magic], rdev=os.makedev(major, minor))
    return None
