"""POSIX access control lists: XFS's own form, shown as the kernel shows them to programs.

Layouts: struct xfs_acl in the kernel's fs/xfs/libxfs/xfs_format.h, struct posix_acl_xattr_header
and posix_acl_xattr_entry in its include/uapi/linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import struct
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged

SHOWN_AS: Final = {
    b"trusted.SGI_ACL_FILE": b"system.posix_acl_access",
    b"trusted.SGI_ACL_DEFAULT": b"system.posix_acl_default",
}

_STORED: Final = struct.Struct(">IIHxx")
_SHOWN: Final = struct.Struct("<HHI")
_SHOWN_VERSION: Final = struct.pack("<I", 2)
_NAMED: Final = (0x02, 0x08)
"""Entries for one user and one group."""

_TAGS: Final = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20)
_NO_ID: Final = 0xFFFFFFFF


def with_access_lists(stored: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """A file's attributes, and its lists in the common form too: the kernel lists both."""
    shown = {
        SHOWN_AS[name]: _in_common_form(value) for name, value in stored.items() if name in SHOWN_AS
    }
    return {**stored, **shown}


def _in_common_form(stored: bytes) -> bytes:
    count = int.from_bytes(stored[:4], "big")
    if len(stored) < 4 or len(stored) < 4 + count * _STORED.size:
        raise GuestDamaged("an access control list is cut off")
    parts = [_SHOWN_VERSION]
    for tag, owner, allowed in _STORED.iter_unpack(stored[4 : 4 + count * _STORED.size]):
        if tag not in _TAGS:
            raise GuestDamaged(f"an access control list has an entry of unknown kind {tag:#x}")
        parts.append(_SHOWN.pack(tag, allowed, owner if tag in _NAMED else _NO_ID))
    return b"".join(parts)
