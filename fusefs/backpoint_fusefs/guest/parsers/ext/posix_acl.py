"""POSIX access control lists: from what ext4 keeps to what the kernel gives a program.

Decides nothing. Layouts: struct ext4_acl_entry in fs/ext4/acl.h, version 1, whose entries have an
identity only where it means something; and linux/posix_acl_xattr.h, version 2.
"""

from __future__ import annotations

import struct

from backpoint_fusefs.guest.filesystem import GuestDamaged

_STORED_VERSION = 1
_KERNEL_VERSION = 2
_SHORT = struct.Struct("<HH")
_LONG = struct.Struct("<HHI")
_USER, _GROUP = 0x02, 0x08
# The owner, the owning group, the mask and all others.
_WITHOUT_IDENTITY = (0x01, 0x04, 0x10, 0x20)
_NO_IDENTITY = 0xFFFF_FFFF


def kernel_acl(stored: bytes) -> bytes:
    """Raises GuestDamaged."""
    if len(stored) < 4 or int.from_bytes(stored[:4], "little") != _STORED_VERSION:
        raise GuestDamaged("an access control list is of an unknown version")
    found = bytearray(_KERNEL_VERSION.to_bytes(4, "little"))
    at = 4
    while at < len(stored):
        if at + _SHORT.size > len(stored):
            raise GuestDamaged("an access control list is cut off")
        tag, allowed = _SHORT.unpack_from(stored, at)
        identity = _NO_IDENTITY
        if tag in (_USER, _GROUP) and at + _LONG.size <= len(stored):
            identity = _LONG.unpack_from(stored, at)[2]
            at += _LONG.size
        elif tag in _WITHOUT_IDENTITY:
            at += _SHORT.size
        else:
            raise GuestDamaged("an access control list has an impossible entry")
        found += _LONG.pack(tag, allowed, identity)
    return bytes(found)
