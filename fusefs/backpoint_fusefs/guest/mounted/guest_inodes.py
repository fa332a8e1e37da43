"""Inode numbers of guest files: 39 bits of the guest's own number, 20 bits of which tree it is in.

A tree's 20 bits are drawn from a hash; where two trees that are in use have the same, the later one
gets the next that is free. A file remembers them, so that they are the same after a restart, and
tell which tree they mean before anybody has looked into it. Knows no files.
"""

from __future__ import annotations

from typing import Final

from backpoint_fusefs import inodes
from backpoint_fusefs.guest.mounted.slot_file import SlotFile
from backpoint_fusefs.guest.mounted.tree_key import SLOTS, TreeKey
from backpoint_fusefs.guest.parser_answers import INO_BITS

_ROLE_BITS: Final = 16
_LOW_BITS: Final = 11


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


def slot_of(inode: int) -> int:
    """Of a guest file's number."""
    return inode >> _ROLE_BITS + INO_BITS - _LOW_BITS


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

    def __init__(self, file: SlotFile | None = None) -> None:
        """file: of earlier mounts and of others at work; None: nothing is remembered."""
        self._file = file
        self._slots: dict[TreeKey, int] = {}
        self._keys: dict[int, TreeKey] = {}
        self._generations: dict[int, int] = {}
        self._learn()

    def slot(self, key: TreeKey) -> int:
        """Raises OverflowError when a million trees are in use."""
        found = self._slots.get(key)
        if found is not None:
            return found
        if self._file is None:
            return self._drawn(key)
        with self._file.turn():
            self._learn()
            found = self._slots.get(key)
            if found is None:
                found = self._drawn(key)
                self._file.add(found, key)
        return found

    def key(self, slot: int) -> TreeKey | None:
        """None for one that no mount has used."""
        if slot not in self._keys:
            self._learn()
        return self._keys.get(slot)

    def generation(self, slot: int) -> int:
        """Of a slot's tree. Raises KeyError for one that was never used."""
        found = self._generations.get(slot)
        if found is None:
            found = self._generations[slot] = self._keys[slot].generation
        return found

    def _drawn(self, key: TreeKey) -> int:
        if len(self._slots) == SLOTS:
            raise OverflowError("too many trees in one mount")
        found = key.preferred_slot
        while found in self._keys:
            found = (found + 1) % SLOTS
        self._take(found, key)
        return found

    def _learn(self) -> None:
        """What other mounts have put down; of two that contradict each other the first counts."""
        for slot, key in self._file.news() if self._file is not None else ():
            if slot not in self._keys and key not in self._slots:
                self._take(slot, key)

    def _take(self, slot: int, key: TreeKey) -> None:
        self._slots[key] = slot
        self._keys[slot] = key
