"""A region of extended attributes in an inode or a block: entries first, values at the end.

Decides which entries are possible. Knows no attribute's meaning.
Layout: fs/ext4/xattr.h, checks as `check_xattrs` in fs/ext4/xattr.c.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.inode import CLASSIC_SIZE, Inode

XATTR_MAGIC: Final = 0xEA020000
BLOCK_HEADER_SIZE: Final = 32
_INODE_HEADER_SIZE = 4
_ENTRY = struct.Struct("<BBHIII")  # length of the name, index, value's offset, inode, size, hash
# What a program can be given at most (XATTR_SIZE_MAX).
_LARGEST_VALUE = 64 << 10


class Attribute(NamedTuple):
    """prefix: stands for the name's prefix. value: its bytes, unless `value_ino` has them."""

    prefix: int
    name: bytes
    value: bytes
    value_ino: int
    value_size: int


def attributes_in_inode(inode: Inode) -> list[Attribute]:
    """Raises GuestDamaged."""
    start = CLASSIC_SIZE + inode.extra_size
    header = inode.raw[start : start + _INODE_HEADER_SIZE]
    if not inode.extra_size or header != XATTR_MAGIC.to_bytes(4, "little"):
        return []
    region = inode.raw[start + _INODE_HEADER_SIZE :]
    return _attributes(region, 0, f"inode {inode.ino}")


def attributes_in_block(block: bytes, number: int) -> list[Attribute]:
    """Raises GuestDamaged."""
    return _attributes(block, BLOCK_HEADER_SIZE, f"block {number}")


def _attributes(region: bytes, at: int, where: str) -> list[Attribute]:
    """Values' offsets count from the region's start, entries from `at` on."""
    found: list[Attribute] = []
    while any(region[at : at + 4]):
        if at + _ENTRY.size > len(region):
            raise GuestDamaged(f"the attributes of {where} have no end")
        name_length, prefix, offset, ino, size, _ = _ENTRY.unpack_from(region, at)
        at += _ENTRY.size
        name = region[at : at + name_length]
        # Whatever has no room for its value cannot be, and neither can what no program could read.
        if size > _LARGEST_VALUE or (not ino and offset + size > len(region)) or b"\0" in name:
            raise GuestDamaged(f"the attributes of {where} are impossible")
        value = b"" if ino else region[offset : offset + size]
        found.append(Attribute(prefix, name, value, ino, size))
        at += name_length + -name_length % 4
    if at + 4 > len(region):
        raise GuestDamaged(f"the attributes of {where} have no end")
    return found
