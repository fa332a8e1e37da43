"""Inode numbers of guest files: 39 bits of the guest's own number, 20 bits of which tree it is in.

A tree is one subvolume of one filesystem, seen in one place of one point. Its 20 bits are drawn
from a hash, so that they are the same after a restart; where two trees that are in use have the
same, the later one gets the next that is free. Knows no files.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from backpoint_fusefs import inodes
from backpoint_fusefs.guest.parser_answers import INO_BITS

_ROLE_BITS: Final = 16
_LOW_BITS: Final = 11
_TREE_BITS: Final = 20


class TreeKey(NamedTuple):
    """place: the volume's name, or `root/` and the name of a mount in the guest's own view."""

    point_id: bytes
    place: str
    tree: int


def guest_inode(slot: int, ino: int) -> int:
    """64 bits."""
    number = slot << INO_BITS | ino
    return number >> _LOW_BITS << _ROLE_BITS | inodes.GUEST_FILE | number & (1 << _LOW_BITS) - 1


def take_guest_apart(inode: int) -> tuple[int, int] | None:
    """(slot, ino), or None where the number is no guest file's."""
    if not is_guest_file(inode):
        return None
    number = inode >> _ROLE_BITS << _LOW_BITS | inode & (1 << _LOW_BITS) - 1
    return number >> INO_BITS, number & (1 << INO_BITS) - 1


def is_guest_file(inode: int) -> bool:
    """Whether it is the number of a guest's own file."""
    role = inode & (1 << _ROLE_BITS) - 1
    return inodes.GUEST_FILE <= role < inodes.GUEST_FILE + inodes.GUEST_FILES


def is_guest_folder(inode: int) -> bool:
    """Whether it is the number of a `guest/` folder, or of something of ours in one."""
    role = inode & (1 << _ROLE_BITS) - 1
    extra = inodes.GUEST_EXTRA <= role < inodes.GUEST_EXTRA + inodes.GUEST_EXTRAS
    return role == inodes.GUEST_FOLDER or extra


class TreeSlots:
    """Which tree has which 20 bits. For the event loop only."""

    def __init__(self) -> None:
        self._slots: dict[TreeKey, int] = {}
        self._keys: dict[int, TreeKey] = {}

    def slot(self, key: TreeKey) -> int:
        """Raises OverflowError when a million trees are in use."""
        found = self._slots.get(key)
        if found is None:
            if len(self._slots) == 1 << _TREE_BITS:
                raise OverflowError("too many trees in one mount")
            found = _preferred(key)
            while found in self._keys:
                found = (found + 1) % (1 << _TREE_BITS)
            self._slots[key] = found
            self._keys[found] = key
        return found

    def key(self, slot: int) -> TreeKey | None:
        """None for one that was never used in this mount."""
        return self._keys.get(slot)


def _preferred(key: TreeKey) -> int:
    text = b"%s\0%d\0%s" % (key.point_id, key.tree, key.place.encode("utf-8", "surrogatepass"))
    digest = hashlib.blake2b(text, digest_size=8, person=b"backpoint tree").digest()
    return int.from_bytes(digest, "big") % (1 << _TREE_BITS)
