"""Inode numbers of guest files: unlike all others, and unlike one another."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs import inodes
from backpoint_fusefs.guest.mounted.guest_inodes import (
    TreeSlots,
    guest_inode,
    is_guest_file,
    is_guest_folder,
    slot_of,
    take_guest_apart,
)
from backpoint_fusefs.guest.mounted.slot_file import SIZE_MAX, SlotFile
from backpoint_fusefs.guest.mounted.tree_key import TreeKey
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
    assert slot_of(inode) == slot


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


def keys(count: int) -> list[TreeKey]:
    """Of points and volumes of many kinds."""
    return [TreeKey(bytes([at % 256]) * 16, f"disk{at // 256}", at % 3) for at in range(count)]


def colliding(slot: int, count: int) -> list[TreeKey]:
    """Trees that are all drawn to one place."""
    found: list[TreeKey] = []
    tree = 0
    while len(found) < count:
        tree += 1
        key = TreeKey(bytes(16), "disk0", tree)
        if key.preferred_slot // 1000 == slot:
            found.append(key)
    return found


def test_a_restart_gives_every_tree_its_number(tmp_path: Path) -> None:
    """Whatever the order in which they are met then, and before anybody has met them."""
    path = tmp_path / "state" / "handles"
    own = keys(600)
    before = TreeSlots(SlotFile(path))
    numbers = [before.slot(key) for key in own]
    after = TreeSlots(SlotFile(path))
    assert [after.key(number) for number in numbers] == own
    assert [after.slot(key) for key in reversed(own)] == numbers[::-1]
    assert [after.generation(number) for number in numbers] == [key.generation for key in own]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_mounts_at_once_agree(tmp_path: Path) -> None:
    """Each sees what the other put down, also of trees that are drawn to one place."""
    path = tmp_path / "handles"
    one, other = TreeSlots(SlotFile(path)), TreeSlots(SlotFile(path))
    own = keys(200)
    for turn, key in enumerate(own):
        (one, other)[turn % 2].slot(key)
    numbers = [one.slot(key) for key in own]
    assert numbers == [other.slot(key) for key in own]
    assert len(set(numbers)) == len(own)
    third = TreeSlots(SlotFile(path))
    late = TreeKey(b"late" * 4, "root/3", 5)
    assert one.key(third.slot(late)) == late
    assert len(path.read_bytes().splitlines()) == len(own) + 1


def test_trees_drawn_to_one_place_keep_their_places(tmp_path: Path) -> None:
    """Were they drawn anew in another order, a handle would open another file."""
    path = tmp_path / "handles"
    path.write_text(
        "".join(json.dumps([slot, "ff" * 16, "x", slot]) + "\n" for slot in range(1000))
    )
    rivals = colliding(0, 3)
    before = TreeSlots(SlotFile(path))
    numbers = [before.slot(key) for key in rivals]
    assert all(number >= 1000 for number in numbers)
    after = TreeSlots(SlotFile(path))
    assert [after.slot(key) for key in reversed(rivals)] == numbers[::-1]
    assert len({key.generation for key in rivals}) == len(rivals)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\0" * 100,
        b'[1, "aa"',
        b"not json\n",
        b'[1, "00", "disk0", 0]\n',
        b'[-1, "' + b"00" * 16 + b'", "disk0", 0]\n',
        b'[1, "' + b"00" * 16 + b'", "root/x", 0]\n',
        b'[true, "' + b"00" * 16 + b'", "disk0", 0]\n',
        b'[1, "' + b"00" * 16 + b'", "disk0", 1e99]\n',
        b"[" * 5000 + b"\n",
    ],
)
def test_a_damaged_file_costs_what_is_damaged(tmp_path: Path, rubbish: bytes) -> None:
    """The lines around it count, and new ones are whole."""
    path = tmp_path / "handles"
    first, second = keys(2)
    number = TreeSlots(SlotFile(path)).slot(first)
    with path.open("ab") as file:
        file.write(rubbish)
    slots = TreeSlots(SlotFile(path))
    assert slots.key(number) == first
    added = slots.slot(second)
    again = TreeSlots(SlotFile(path))
    assert (again.key(number), again.key(added)) == (first, second)


def test_what_cannot_be_kept_harms_nobody(tmp_path: Path) -> None:
    """A folder in its place, a file that another holds: numbers are given all the same."""
    (tmp_path / "folder").mkdir()
    blocked = TreeSlots(SlotFile(tmp_path / "folder"))
    assert blocked.key(blocked.slot(keys(1)[0])) == keys(1)[0]
    path = tmp_path / "held"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        slots = TreeSlots(SlotFile(path))
        assert slots.key(slots.slot(keys(1)[0])) == keys(1)[0]
    assert path.read_bytes() == b""


def test_a_file_that_grew_is_halved(tmp_path: Path) -> None:
    """The newest trees stay, for the mounts that go on as well."""
    path = tmp_path / "handles"
    first, second, third = keys(3)
    going_on = TreeSlots(SlotFile(path))
    old = going_on.slot(first)
    with path.open("ab") as file:
        file.write((b"x" * 99 + b"\n") * (SIZE_MAX // 100))
    other = TreeSlots(SlotFile(path))
    new = other.slot(second)
    assert path.stat().st_size <= SIZE_MAX // 2
    last = going_on.slot(third)
    after = TreeSlots(SlotFile(path))
    assert (after.key(old), after.key(new), after.key(last)) == (None, second, third)
    assert going_on.key(old) == first
