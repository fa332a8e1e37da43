"""OS/2 extended attributes, in which the Windows Subsystem for Linux keeps owners and devices.

Format: "FILE_FULL_EA_INFORMATION" ([MS-FSCC] 2.4.15); what `$LX...` mean: ntfs-3g `ea.c`, Linux
`fs/ntfs3/xattr.c`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged

EA_MAX: Final = 1 << 16
_HEAD: Final = struct.Struct("<IBBH")


class LinuxMetadata(NamedTuple):
    """What is None the file does not say."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    rdev: int | None = None


def linux_metadata(value: bytes) -> LinuxMetadata:
    found = _attributes(value)
    uid, gid, mode = (_number(found, name) for name in (b"$LXUID", b"$LXGID", b"$LXMOD"))
    device = found.get(b"$LXDEV", b"")
    rdev = os.makedev(*struct.unpack("<II", device)) if len(device) == 8 else None
    return LinuxMetadata(uid, gid, mode, rdev)


def _number(found: Mapping[bytes, bytes], name: bytes) -> int | None:
    value = found.get(name, b"")
    return int.from_bytes(value, "little") if len(value) == 4 else None


def _attributes(value: bytes) -> dict[bytes, bytes]:
    found = {}
    at = 0
    while at + _HEAD.size <= len(value):
        step, _, name_length, length = _HEAD.unpack_from(value, at)
        name_at = at + _HEAD.size
        value_at = name_at + name_length + 1
        if value_at + length > len(value):
            raise GuestDamaged("a file's extended attributes are cut off")
        name = value[name_at : name_at + name_length].upper()
        found[name] = value[value_at : value_at + length]
        if step == 0:
            break
        if step < _HEAD.size:
            raise GuestDamaged("a file's extended attributes lead in circles")
        at += step
    return found
