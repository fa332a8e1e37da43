"""Inode numbers of guest files: unlike all others, and unlike one another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs import inodes
from backpoint_fusefs.guest.mounted.guest_inodes import (
    TreeKey,
    TreeSlots,
    guest_inode,
    is_guest_file,
    is_guest_folder,
    take_guest_apart,
)
from backpoint_fusefs.guest.parser_answers import INO_BITS

SLOTS = st.integers(0, (1 << 20) - 1)
INOS = st.integers(0, (1 << INO_BITS) - 1)


@given(SLOTS, INOS)
def test_a_number_tells_what_it_was_made_of(slot: int, ino: int) -> None:
    """And is a guest file's by its looks."""
    inode = guest_inode(slot, ino)
    assert 0 < inode < 1 << 64
    assert is_guest_file(inode)
    assert not is_guest_folder(inode)
    assert take_guest_apart(inode) == (slot, ino)


@given(st.integers(0, (1 << 48) - 1), st.integers(0, 0xFFFF))
def test_other_numbers_are_not_taken_for_a_guests(prefix: int, role: int) -> None:
    """Each number is one realm's."""
    inode = inodes.Number(prefix, role).inode
    own = inodes.GUEST_FILE <= role < inodes.GUEST_FILE + inodes.GUEST_FILES
    assert is_guest_file(inode) == own
    assert (take_guest_apart(inode) is not None) == own
    assert not (is_guest_file(inode) and is_guest_folder(inode))


def test_trees_keep_apart_and_are_found_again() -> None:
    """Also where two are drawn to the same place; after a restart most are where they were."""
    keys = [
        TreeKey(bytes([number % 256]) * 16, f"disk{number // 256}", 0) for number in range(5_000)
    ]
    slots = TreeSlots()
    numbers = [slots.slot(key) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert [slots.key(number) for number in numbers] == keys
    assert [slots.slot(key) for key in keys] == numbers
    again = TreeSlots()
    same = sum(
        again.slot(key) == number for key, number in zip(keys[::-1], numbers[::-1], strict=True)
    )
    assert same > 4_900


def test_what_was_never_used_is_nothing() -> None:
    assert TreeSlots().key(5) is None
