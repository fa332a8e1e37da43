"""What Rock Ridge says of a file: its real name, owner, mode, times, link, device, place.

Formats: SUSP IEEE P1281, RRIP IEEE P1282.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.iso9660.iso_time import long_time_ns, short_time_ns

_PAIR: Final = struct.Struct("<I4x")
_CONTINUED_MAX: Final = 64
_MORE: Final = 0x01
_TIME_MODIFIED: Final = 0x02
_TIME_ACCESSED: Final = 0x04
_TIME_CHANGED: Final = 0x08
_TIME_LONG: Final = 0x80
_COMPONENTS: Final = {0x02: b".", 0x04: b"..", 0x08: b""}


@dataclass
class RockRidge:
    """What is None the disc does not say. child: the block of a folder that is elsewhere.

    moved: this is such a folder, where it is kept. unpacked: the size of content packed by zisofs.
    """

    name: bytes = b""
    mode: int | None = None
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    mtime_ns: int | None = None
    atime_ns: int | None = None
    ctime_ns: int | None = None
    target: bytes = b""
    child: int | None = None
    moved: bool = False
    unpacked: int | None = None


def uses_rock_ridge(system_use: bytes) -> int | None:
    """By the fields of the root's own record: how many bytes to skip in others, or None."""
    if system_use[:2] == b"SP" and system_use[4:6] == b"\xbe\xef" and len(system_use) >= 7:
        return system_use[6]
    return None


def read_rock_ridge(system_use: bytes, read: Callable[[int, int, int], bytes]) -> RockRidge:
    """read: (block, offset, length) of where the fields go on."""
    found = RockRidge()
    parts: list[bytes] = []
    open_part = False
    for kind, field in _fields(system_use, read):
        if kind == b"NM" and len(field) > 4 and not field[4] & 0x06:
            found.name += field[5:]
        elif kind == b"SL" and len(field) > 4:
            open_part = _add_components(parts, field[5:], open_part=open_part)
        else:
            _apply(found, kind, field)
    found.target = b"/".join(parts) or (b"/" if parts else b"")
    return found


def _apply(found: RockRidge, kind: bytes, field: bytes) -> None:
    if kind == b"PX" and len(field) >= 36:
        found.mode, found.nlink, found.uid, found.gid = (
            _PAIR.unpack_from(field, at)[0] for at in (4, 12, 20, 28)
        )
    elif kind == b"PN" and len(field) >= 20:
        high, low = _PAIR.unpack_from(field, 4)[0], _PAIR.unpack_from(field, 12)[0]
        # Some writers put all of it into the lower half; Linux reads it so.
        split = not high and low > 0xFF
        found.rdev = os.makedev(low >> 8, low & 0xFF) if split else os.makedev(high, low)
    elif kind == b"TF" and len(field) > 4:
        _set_times(found, field)
    elif kind == b"CL" and len(field) >= 12:
        (found.child,) = _PAIR.unpack_from(field, 4)
    elif kind == b"RE":
        found.moved = True
    elif kind == b"ZF" and len(field) >= 16:
        (found.unpacked,) = _PAIR.unpack_from(field, 8)


def _set_times(found: RockRidge, field: bytes) -> None:
    flags, at = field[4], 5
    size, parse = (17, long_time_ns) if flags & _TIME_LONG else (7, short_time_ns)
    for bit in (0x01, _TIME_MODIFIED, _TIME_ACCESSED, _TIME_CHANGED):
        if not flags & bit:
            continue
        time_ns = parse(field[at : at + size])
        at += size
        if bit == _TIME_MODIFIED:
            found.mtime_ns = time_ns
        elif bit == _TIME_ACCESSED:
            found.atime_ns = time_ns
        elif bit == _TIME_CHANGED:
            found.ctime_ns = time_ns


def _add_components(parts: list[bytes], data: bytes, *, open_part: bool) -> bool:
    """Of a link's target; open_part: the last one goes on. Returns whether it still does."""
    at = 0
    while at + 2 <= len(data):
        flags, length = data[at], data[at + 1]
        text = _COMPONENTS.get(flags & 0x0E, data[at + 2 : at + 2 + length])
        if open_part:
            parts[-1] += text
        else:
            parts.append(text)
        open_part = bool(flags & _MORE)
        at += 2 + length
    return open_part


def _fields(data: bytes, read: Callable[[int, int, int], bytes]) -> Iterator[tuple[bytes, bytes]]:
    for _ in range(_CONTINUED_MAX):
        following = None
        at = 0
        while at + 4 <= len(data):
            kind, length = data[at : at + 2], data[at + 2]
            if kind == b"ST" or length < 4 or at + length > len(data):
                break
            field = data[at : at + length]
            if kind == b"CE" and length >= 28:
                following = tuple(_PAIR.unpack_from(field, place)[0] for place in (4, 12, 20))
            else:
                yield kind, field
            at += length
        if following is None:
            return
        data = read(*following)
    raise GuestDamaged("a file's Rock Ridge fields lead in circles")


def plain_mode(*, directory: bool) -> int:
    """Of a file without Rock Ridge."""
    return stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
