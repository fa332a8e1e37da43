"""Holds on points: one for each holder, dropped by name, none on what is gone."""

from __future__ import annotations

from typing import Any

import pytest

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreReadOnly, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.lease import LIFETIME_S, SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases
from backpoint_repo.pin import pin_of
from backpoint_repo.point import Point
from backpoint_repo.point_hold import (
    REMOVING,
    Hold,
    drop_hold,
    drop_holds,
    put_hold,
    read_holds,
)
from backpoint_repo.point_note import AFTERMATH, PointNote, put_note
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    NOON,
    as_agent,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    reopened,
)
from synthetic_disk import random_disk

HOLDER = "00112233445566ff"
OTHER = "ff00ff00ff00ff00"


def test_a_hold_comes_back(repository: Repository) -> None:
    """For both credentials, beside other notes and other holders."""
    point = back_up(repository, "vm", random_disk(1 << 16, 1)).point_id
    put_note(repository.sealed, PointNote(point, AFTERMATH, 5.0, {}))
    lasting = Hold(point, HOLDER, "live session web on host", NOON)
    passing = Hold(point, OTHER, "an audit", NOON, NOON + 60)
    put_hold(as_agent(repository).sealed, lasting)
    put_hold(repository.sealed, passing)
    for view in (reopened(repository), as_agent(repository)):
        assert sorted(read_holds(view.sealed), key=lambda hold: hold.holder) == [lasting, passing]
    assert lasting.holds_at(NOON * 2)
    assert passing.holds_at(NOON + 59)
    assert not passing.holds_at(NOON + 60)
    assert_clean(repository)


def test_a_second_put_changes_nothing(repository: Repository) -> None:
    """What is tried again after a crash is no error; the first one counts."""
    point = back_up(repository, "vm", random_disk(1 << 16, 1)).point_id
    first = Hold(point, HOLDER, "first", NOON)
    put_hold(repository.sealed, first)
    put_hold(repository.sealed, Hold(point, HOLDER, "second", NOON + 1))
    assert read_holds(repository.sealed) == [first]


def test_dropping(repository: Repository) -> None:
    """One, all of a holder but some, and what is not there; other notes stay."""
    points = [back_up(repository, "vm", random_disk(1 << 16, n)).point_id for n in range(3)]
    put_note(repository.sealed, PointNote(points[0], AFTERMATH, 5.0, {}))
    for point in points:
        put_hold(repository.sealed, Hold(point, HOLDER, "", NOON))
        put_hold(repository.sealed, Hold(point, OTHER, "", NOON))
    drop_hold(repository.sealed, points[0], HOLDER)
    drop_hold(repository.sealed, points[0], HOLDER)
    drop_holds(repository.sealed, HOLDER, keep=[points[2]])
    left = {(hold.point_id, hold.holder) for hold in read_holds(repository.sealed)}
    assert left == {(point, OTHER) for point in points} | {(points[2], HOLDER)}
    assert f"notes/{points[0].hex()}-{AFTERMATH}" in keys_of(repository.sealed.store, Kind.NOTE)
    assert_clean(repository)


def test_a_point_that_is_gone_is_not_held(repository: Repository) -> None:
    """Neither by a new hold, which leaves nothing, nor by an old one."""
    with pytest.raises(ObjectMissing):
        put_hold(repository.sealed, Hold(bytes(16), HOLDER, "", NOON))
    assert keys_of(repository.sealed.store, Kind.NOTE) == []
    point = back_up(repository, "vm", random_disk(1 << 16, 1)).point_id
    put_hold(repository.sealed, Hold(point, HOLDER, "", NOON))
    repository.sealed.delete(Kind.POINT, point.hex())
    assert read_holds(repository.sealed) == []


def removing(repository: Repository, point: Point) -> Lease:
    """As of somebody who is about to remove the point."""
    terms = LeaseTerms(REMOVING, SEEN_ALL, (pin_of(point),))
    return Lease(repository.sealed, b"r" * 16, terms, repository.clock)


def test_a_point_that_is_about_to_go_is_not_held(repository: Repository) -> None:
    """Not even for an instant after its remover's last sign of life was due: clocks differ."""
    point = back_up(repository, "vm", random_disk(1 << 16, 1))
    removing(repository, point)
    with pytest.raises(ObjectMissing, match="being removed"):
        put_hold(repository.sealed, Hold(point.point_id, HOLDER, "", NOON + LIFETIME_S))
    assert read_holds(repository.sealed) == []
    assert len(read_leases(repository.sealed)) == 1


def test_a_removal_that_was_killed_keeps_nobody_from_holding(repository: Repository) -> None:
    """It is ended, so that it removes nothing should it only have slept."""
    point = back_up(repository, "vm", random_disk(1 << 16, 1))
    other = back_up(repository, "vm", random_disk(1 << 16, 2))
    lease = removing(repository, point)
    late = NOON + LIFETIME_S + 1
    put_hold(repository.sealed, Hold(other.point_id, HOLDER, "", late))
    assert len(read_leases(repository.sealed)) == 1, "it is of no concern for another point"
    put_hold(repository.sealed, Hold(point.point_id, HOLDER, "", late))
    assert {hold.point_id for hold in read_holds(repository.sealed)} == {
        point.point_id,
        other.point_id,
    }
    lease.look()
    assert lease.lost
    assert read_leases(repository.sealed) == []


def test_who_cannot_end_a_removal_that_was_killed_holds_nothing() -> None:
    """Without the right to delete, a remover that sleeps would not notice."""
    store = AppendOnly()
    repository = new_repository(store)
    point = back_up(repository, "vm", random_disk(1 << 16, 1))
    removing(repository, point)
    store.armed = True
    with pytest.raises(ObjectMissing, match="being removed"):
        put_hold(repository.sealed, Hold(point.point_id, HOLDER, "", NOON + LIFETIME_S + 1))


class AppendOnly(MemoryStore):
    """Refuses to delete, when told to."""

    armed = False

    def delete(self, key: str) -> None:
        if self.armed:
            raise StoreReadOnly("append only")
        super().delete(key)


@pytest.mark.parametrize("holder", ["", "xyz", "0" * 15, "0" * 17, "00112233445566FF", "../" * 5])
def test_odd_holders_are_refused(repository: Repository, holder: str) -> None:
    """Before anything is written or deleted."""
    with pytest.raises(UsageError):
        put_hold(repository.sealed, Hold(bytes(16), holder, "", NOON))
    with pytest.raises(UsageError):
        drop_hold(repository.sealed, bytes(16), holder)
    assert keys_of(repository.sealed.store, Kind.NOTE) == []


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"why": 1, "since": 1.0},
        {"why": "", "since": "x"},
        {"why": "", "since": 1.0, "until": 7},
    ],
)
def test_a_hold_that_says_nonsense_is_damage(repository: Repository, facts: dict[str, Any]) -> None:
    """So that its point is not removed."""
    point = back_up(repository, "vm", random_disk(1 << 16, 1)).point_id
    put_note(repository.sealed, PointNote(point, f"hold{HOLDER}", NOON, facts))
    with pytest.raises(ObjectDamaged):
        read_holds(repository.sealed)
