"""Reparse points: what stands in an NTFS file's place: a link, a device, or content kept elsewhere.

Decides how a Windows target is written as a path here; resolves nothing. Formats: [MS-FSCC] 2.1.2;
the Linux ones as the Windows Subsystem for Linux writes them (ntfs-3g `reparse.c`).
"""

from __future__ import annotations

import stat
import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged

REPARSE_MAX: Final = 1 << 16

_HEAD: Final = struct.Struct("<IHH")
_PLACES: Final = struct.Struct("<HHHH")
_RELATIVE: Final = 1

_SYMLINK: Final = 0xA000000C
_MOUNT_POINT: Final = 0xA0000003
_LX_SYMLINK: Final = 0xA000001D
_DEVICES: Final = {
    0x80000023: stat.S_IFSOCK,
    0x80000024: stat.S_IFIFO,
    0x80000025: stat.S_IFCHR,
    0x80000026: stat.S_IFBLK,
}
# A launcher of a Windows app: the file is empty and is meant to be.
_WITHOUT_CONTENT: Final = 0x8000001B
_ELSEWHERE: Final = {
    0x80000013: "its content is in the volume's deduplication store",
    0x80000017: "it is compressed by the Windows Overlay Filter (CompactOS)",
}


class ReparsePoint(NamedTuple):
    """format: the file type it makes of the file (S_IFLNK, ...), or 0. problem: a sentence if the
    file's data are not its content. cloud: they are, if all of them are on the disk."""

    format: int = 0
    target: bytes = b""
    problem: str = ""
    cloud: bool = False


def read_reparse_point(data: bytes) -> ReparsePoint:
    if len(data) < _HEAD.size:
        raise GuestDamaged("a reparse point is cut off")
    tag, length, _ = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if tag == _SYMLINK:
        flags = int.from_bytes(body[8:12], "little")
        return ReparsePoint(stat.S_IFLNK, _target(body, 12, relative=bool(flags & _RELATIVE)))
    if tag == _MOUNT_POINT:
        return ReparsePoint(stat.S_IFLNK, _target(body, 8, relative=False))
    if tag == _LX_SYMLINK:
        return ReparsePoint(stat.S_IFLNK, body[4:])
    if tag in _DEVICES:
        return ReparsePoint(_DEVICES[tag])
    if tag == _WITHOUT_CONTENT:
        return ReparsePoint()
    if tag & 0xFFFF0FFF == 0x9000001A or tag == 0x80000021:
        return ReparsePoint(problem="parts of it are only in the cloud", cloud=True)
    return ReparsePoint(problem=_ELSEWHERE.get(tag, f"Windows keeps it by reparse tag {tag:#x}"))


def _target(body: bytes, names_at: int, *, relative: bool) -> bytes:
    """The name that Windows would open; the one meant for people may be empty."""
    if len(body) < names_at:
        raise GuestDamaged("a link is cut off")
    start, length, _, _ = _PLACES.unpack_from(body)
    name = body[names_at + start : names_at + start + length]
    if len(name) != length or length % 2:
        raise GuestDamaged("a link's target reaches out of it")
    text = name.decode("utf-16-le", "surrogatepass")
    if not relative:
        text = _absolute(text)
    return text.replace("\\", "/").encode("utf-8", "surrogatepass")


def _absolute(text: str) -> str:
    """`\\??\\C:\\x` as `/C/x`: drives are folders beside each other in the guest's own view."""
    if text.startswith("\\??\\"):
        text = text[4:]
    if text[1:2] == ":":
        text = text[0].upper() + text[2:]
    return text if text.startswith("\\") else "\\" + text
