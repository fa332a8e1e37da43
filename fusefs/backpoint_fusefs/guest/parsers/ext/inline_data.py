"""Content that lies in the inode itself: sixty bytes in place of the block map, the rest in an
attribute called system.data.

Decides where that content ends. Knows neither files nor folders.
Layout: fs/ext4/inline.c, `ext4_read_inline_data` and `ext4_read_inline_dir`.
"""

from __future__ import annotations

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.inode import Inode
from backpoint_fusefs.guest.parsers.ext.xattr_region import attributes_in_inode

_PARENT_SIZE = 4
_SYSTEM = 7


def inline_content(inode: Inode) -> bytes:
    """All content of a file or a link. Raises GuestDamaged."""
    content = inode.i_block + _remainder(inode)
    if inode.size > len(content):
        raise GuestDamaged(f"inode {inode.ino} has less content in it than it says")
    return content[: inode.size]


def inline_pieces(inode: Inode) -> tuple[bytes, bytes]:
    """A folder's entries: those behind the parent's number, and those in the attribute."""
    if inode.size > len(inode.raw):
        raise GuestDamaged(f"inode {inode.ino} has less content in it than it says")
    rest = max(0, inode.size - len(inode.i_block))
    return inode.i_block[_PARENT_SIZE:], _remainder(inode)[:rest]


def _remainder(inode: Inode) -> bytes:
    for attribute in attributes_in_inode(inode):
        if (attribute.prefix, attribute.name) == (_SYSTEM, b"data"):
            return attribute.value
    raise GuestDamaged(f"inode {inode.ino} should have its content in it and does not")
