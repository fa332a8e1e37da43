"""Trash and damage marks as a collector and a check write them, and as a hostile agent might."""

from __future__ import annotations

import pytest

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.exclusions import Exclusions, mark_damaged, read_exclusions
from backpoint_repo.format import HEADER, MAGIC, Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from small_repository import NOON, back_up
from synthetic_disk import random_disk

PACK = PackRef(Kind.DATA_PACK, b"p" * 16)
NODES = PackRef(Kind.NODE_PACK, b"n" * 16)
ROW = b"\x03" + b"p" * 16


def put_trash(repository: Repository, name: str, **fields: object) -> None:
    repository.sealed.put(Kind.TRASH, name, encode_record(fields))


def test_nothing_there(repository: Repository) -> None:
    found = read_exclusions(repository.sealed)
    assert (found.epoch, found.trashed, found.damaged) == (0, frozenset(), frozenset())


def test_all_trash_counts_and_the_highest_epoch(repository: Repository) -> None:
    put_trash(repository, f"{2:016x}", epoch=2, packs=[ROW])
    put_trash(repository, f"{11:016x}", epoch=11, packs=[b"\x04" + b"n" * 16], swept=9)
    put_trash(repository, f"{10:016x}", epoch=10, packs=[])
    found = read_exclusions(repository.sealed)
    assert found.epoch == 11
    assert found.trashed == {PACK, NODES}


def test_marks_add_up(repository: Repository) -> None:
    mark_damaged(repository.sealed, [(b"a" * 32, PACK), (b"b" * 32, NODES)], NOON)
    mark_damaged(repository.sealed, [(b"a" * 32, NODES)], NOON)
    mark_damaged(repository.sealed, [], NOON)
    found = read_exclusions(repository.sealed)
    assert found.damaged == {(b"a" * 32, PACK), (b"b" * 32, NODES), (b"a" * 32, NODES)}
    assert found.damaged_ids == {b"a" * 32, b"b" * 32}


@pytest.mark.parametrize("row", [b"", b"short", b"a" * 32 + b"\x09" + b"p" * 16, b"x" * 60])
def test_rows_that_name_no_pack_are_passed_over(repository: Repository, row: bytes) -> None:
    good = b"a" * 32 + ROW
    for name, copies in {"first": [row, good], "last": [good, row]}.items():
        repository.sealed.put(Kind.DAMAGE, name, encode_record({"copies": copies}))
    assert read_exclusions(repository.sealed).damaged == {(b"a" * 32, PACK)}
    back_up(repository, "vm", random_disk(9999, 1))


def test_trash_that_cannot_be_read_stops_a_backup(repository: Repository) -> None:
    """Going on could mean to refer to what is about to be deleted."""
    repository.sealed.store.put(object_key(Kind.TRASH, f"{1:016x}"), [b"garbage"])
    with pytest.raises(ObjectDamaged, match=r"trash/0*1"):
        repository.begin_backup("vm")


def test_a_mark_that_cannot_be_read_is_told(repository: Repository) -> None:
    repository.sealed.store.put(object_key(Kind.DAMAGE, "1"), [b"garbage"])
    point = back_up(repository, "vm", random_disk(9999, 1))
    assert "damage/1" in point.warnings[0]


def test_marks_of_a_newer_program_are_told(repository: Repository) -> None:
    """Nobody here knows which copies they mean; the other marks count all the same."""
    mark_damaged(repository.sealed, [(b"a" * 32, PACK)], NOON)
    newer = HEADER.pack(MAGIC, Kind.DAMAGE, 99) + b"of another kind"
    repository.sealed.store.put(object_key(Kind.DAMAGE, "2"), [newer])
    found = read_exclusions(repository.sealed)
    assert found.damaged == {(b"a" * 32, PACK)}
    assert "damage/2" in found.unreadable[0]


def test_what_was_excluded_once_stays_excluded() -> None:
    """Trash objects and marks go when their packs are gone; an index may still list those."""
    earlier = Exclusions(7, frozenset({PACK}), frozenset({(b"a" * 32, PACK)}))
    now = Exclusions(9, frozenset({NODES}), frozenset({(b"b" * 32, NODES)}), ("damage/2",))
    for later, before in ((now, earlier), (earlier, now)):
        found = later.after(before)
        assert found.epoch == 9
        assert found.trashed == {PACK, NODES}
        assert found.damaged == {(b"a" * 32, PACK), (b"b" * 32, NODES)}
        assert found.damaged_ids == {b"a" * 32, b"b" * 32}
        assert found.unreadable == later.unreadable
