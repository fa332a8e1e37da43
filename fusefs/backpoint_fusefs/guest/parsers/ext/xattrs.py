"""A file's extended attributes: in the rest of its inode, in a block of their own, or (large
values) in an inode each.

Decides under which full name the kernel shows an attribute, and which it does not list.
Names as the handlers in fs/ext4/xattr.c, checksums as `ext4_xattr_block_csum` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.block_map import read_content, runs_of
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.inode import XATTR_VALUE, Inode
from backpoint_fusefs.guest.parsers.ext.inode_table import InodeTable
from backpoint_fusefs.guest.parsers.ext.posix_acl import kernel_acl
from backpoint_fusefs.guest.parsers.ext.superblock import Superblock
from backpoint_fusefs.guest.parsers.ext.xattr_region import (
    XATTR_MAGIC,
    Attribute,
    attributes_in_block,
    attributes_in_inode,
)

# 5 (lustre.), 7 (system., such as the inline data), 8 (richacl) and 9 (encryption) are not listed.
_PREFIXES: Final = {1: b"user.", 4: b"trusted.", 6: b"security.", 10: b"gnu."}
_ACLS: Final = {2: b"system.posix_acl_access", 3: b"system.posix_acl_default"}


class Xattrs:
    """Of any file of one filesystem."""

    def __init__(self, blocks: Blocks, superblock: Superblock, inodes: InodeTable) -> None:
        self._blocks = blocks
        self._superblock = superblock
        self._inodes = inodes

    def of(self, inode: Inode) -> Mapping[bytes, bytes]:
        """Full names and values, as a program gets them. Raises GuestDamaged."""
        attributes = attributes_in_inode(inode)
        if inode.xattr_block:
            attributes += self._in_block(inode.xattr_block)
        found: dict[bytes, bytes] = {}
        for attribute in attributes:
            if attribute.prefix in _ACLS:
                found.setdefault(_ACLS[attribute.prefix], kernel_acl(self._value(attribute)))
            elif attribute.prefix in _PREFIXES:
                name = _PREFIXES[attribute.prefix] + attribute.name
                # Of two with the same name the kernel finds the one in the inode.
                found.setdefault(name, self._value(attribute))
        return found

    def _in_block(self, number: int) -> list[Attribute]:
        block = self._blocks.read(number)
        if int.from_bytes(block[:4], "little") != XATTR_MAGIC or block[8:12] != b"\1\0\0\0":
            raise GuestDamaged(f"block {number} should hold attributes and does not")
        if self._superblock.has_checksums:
            seed = crc32c(self._superblock.checksum_seed, number.to_bytes(8, "little"))
            wanted = int.from_bytes(block[16:20], "little")
            if crc32c(seed, block[:16] + bytes(4) + block[20:]) != wanted:
                raise GuestDamaged(f"the attributes of block {number} have a wrong checksum")
        return attributes_in_block(block, number)

    def _value(self, attribute: Attribute) -> bytes:
        if not attribute.value_ino:
            return attribute.value
        inode = self._inodes.inode(attribute.value_ino)
        if not inode.flags & XATTR_VALUE or inode.size != attribute.value_size:
            raise GuestDamaged(f"inode {inode.ino} should hold an attribute's value and does not")
        runs = runs_of(self._blocks, self._superblock, inode)
        return read_content(self._blocks, runs, inode.size)
