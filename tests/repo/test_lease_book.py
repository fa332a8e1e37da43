"""Leases as others see them, and how a session is ended from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backpoint_repo.errors import ObjectExists, ObjectMissing, SessionRevoked, StoreReadOnly
from backpoint_repo.format import Kind, object_key
from backpoint_repo.lease import BACKUP, LIFETIME_S, MOUNT, Lease, LeaseTerms
from backpoint_repo.lease_book import UNRELEASED, end_over, put_void, read_leases, revoke
from backpoint_repo.pin import Pin, pin_of
from backpoint_repo.point_note import read_note
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Piece, StoredObject
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    NOON,
    StandingClock,
    assert_clean,
    back_up,
    new_repository,
    reopened,
)
from synthetic_disk import random_disk

BY = b"c" * 16
SESSION = bytes(range(16))
GOOD: dict[str, Any] = {
    "session": SESSION,
    "purpose": "backup",
    "epoch": 3,
    "pins": [b"p" * 16],
    "host": "agent1",
    "pid": 7,
    "started": NOON,
    "refreshed": NOON,
    "lifetime_s": 600.0,
}


def put(repository: Repository, **changed: object) -> None:
    """A lease as anybody with the agent credential can write it."""
    repository.sealed.put(Kind.LEASE, f"{SESSION.hex()}-00000000", encode_record(GOOD | changed))


def test_what_is_read_is_what_was_said(repository: Repository, clock: StandingClock) -> None:
    pin = Pin(b"p" * 16, ((8192, b"r" * 32), (4096, bytes(32))), (b"c" * 32,))
    held = Lease(repository.sealed, SESSION, LeaseTerms(MOUNT, 7, (pin,)), clock)
    clock.now += 60
    held.refresh()
    (lease,) = read_leases(repository.sealed)
    assert (lease.session, lease.number, lease.purpose, lease.epoch) == (SESSION, 1, MOUNT, 7)
    assert (lease.pins, lease.roots, lease.chunks) == ((pin.point_id,), pin.roots, pin.chunks)
    assert (lease.started, lease.refreshed, lease.lifetime_s) == (NOON, NOON + 60, LIFETIME_S)
    assert not lease.problem


def test_a_pin_says_all_that_reading_its_point_needs(repository: Repository) -> None:
    with repository.begin_backup("vm") as session:
        session.store_file("vm.vmx", b"config" * 50)
        point = session.publish(time=None, label="")
    pin = pin_of(back_up(repository, "vm", random_disk(1 << 20, 1)))
    assert [size for size, _ in pin.roots] == [1 << 20]
    assert pin_of(point).chunks == point.files[0].chunks


@pytest.mark.parametrize(
    ("ahead_s", "expired"),
    [(0.0, False), (-601.0, True), (-599.0, False), (1e5, True), (9.0, False)],
)
def test_expiry_goes_by_the_last_sign_of_life(
    repository: Repository, ahead_s: float, expired: bool
) -> None:
    put(repository, refreshed=NOON + ahead_s)
    (lease,) = read_leases(repository.sealed)
    assert lease.looks_expired(NOON) is expired


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"x" * 16},
        {"refreshed": float("nan")},
        {"started": 1e300},
        {"lifetime_s": float("inf")},
        {"lifetime_s": float("nan")},
        {"lifetime_s": 1e9},
        {"epoch": -1},
        {"pins": [b"short"]},
        {"roots": [[1]]},
        {"roots": [[-1, b"r" * 32]]},
        {"roots": [[4096, b"r"]]},
        {"chunks": [b"c"]},
        {"pid": "seven"},
    ],
    ids=str,
)
def test_a_lease_that_makes_no_sense_lives_and_has_seen_nothing(
    repository: Repository, change: dict[str, Any]
) -> None:
    put(repository, **change)
    (lease,) = read_leases(repository.sealed)
    assert lease.problem
    assert lease.epoch == 0
    assert not lease.looks_expired(NOON + 1e9)
    assert lease.problem in lease.title


def test_a_revoked_session_cannot_publish(repository: Repository) -> None:
    with reopened(repository).begin_backup("vm") as session:
        assert revoke(repository.sealed, session.point_id, BY, NOON)
        assert read_leases(repository.sealed) == []
        with pytest.raises(SessionRevoked):
            session.publish(time=None, label="")
    assert reopened(repository).catalog.refresh() == []
    assert_clean(repository)


def test_a_lease_that_somebody_deleted_without_a_void_stops_a_publication(
    repository: Repository,
) -> None:
    """Without it a collector may have deleted what the session relied on."""
    with reopened(repository).begin_backup("vm") as session:
        for name in list(repository.sealed.names(Kind.LEASE)):
            repository.sealed.delete(Kind.LEASE, name)
        with pytest.raises(SessionRevoked):
            session.publish(time=None, label="")
    assert list(repository.sealed.names(Kind.POINT)) == []


def test_revoking_who_has_published_leaves_the_point_and_says_so(repository: Repository) -> None:
    point = back_up(repository, "vm", random_disk(1 << 20, 1))
    Lease(repository.sealed, point.point_id, LeaseTerms(BACKUP, 0), repository.clock)
    for _ in range(2):
        assert not revoke(repository.sealed, point.point_id, BY, NOON)
    assert read_leases(repository.sealed) == []
    assert repository.point(point.point_id) == point
    assert read_note(repository.sealed, point.point_id, UNRELEASED) is not None
    assert_clean(repository)


def test_a_session_whose_point_is_spoiled_has_published(repository: Repository) -> None:
    """Nobody can tell a point from a void there, and it may be healed: it is no void."""
    repository.sealed.store.put(object_key(Kind.POINT, SESSION.hex()), [b"rot"])
    assert not put_void(repository.sealed, SESSION, BY, NOON)
    assert not revoke(repository.sealed, SESSION, BY, NOON)
    assert read_note(repository.sealed, SESSION, UNRELEASED) is not None


def test_ending_a_session_leaves_the_others_alone(repository: Repository) -> None:
    others = [bytes([number]) * 16 for number in range(1, 4)]
    for session in (SESSION, *others):
        Lease(repository.sealed, session, LeaseTerms(BACKUP, 0), repository.clock)
    assert revoke(repository.sealed, SESSION, BY, NOON)
    assert [lease.session for lease in read_leases(repository.sealed)] == others


class RemovedUnderTheNote(MemoryStore):
    """Somebody removes a point just before it is noted that its session never gave its lease back.
    They have seen no such note, so they put no VOID."""

    point = ""

    def put(self, key: str, pieces: list[Piece]) -> None:
        if UNRELEASED in key:
            self.delete(self.point)
        super().put(key, pieces)


def test_a_point_that_is_removed_while_its_session_is_ended() -> None:
    """The session may sleep with its put on the way: what it names can be collected by then, so
    its point must not appear again."""
    store = RemovedUnderTheNote()
    repository = new_repository(store)
    point = back_up(repository, "vm", random_disk(1 << 20, 1))
    store.point = object_key(Kind.POINT, point.point_id.hex())
    stored = store.get(store.point)
    Lease(repository.sealed, point.point_id, LeaseTerms(BACKUP, 0), repository.clock)
    assert revoke(repository.sealed, point.point_id, BY, NOON)
    assert read_leases(repository.sealed) == []
    with pytest.raises(ObjectExists):
        store.put(store.point, [stored])
    assert reopened(repository).catalog.refresh() == []


def test_revoking_twice_is_harmless(repository: Repository) -> None:
    assert revoke(repository.sealed, SESSION, BY, NOON)
    assert revoke(repository.sealed, SESSION, BY, NOON)
    with pytest.raises(ObjectMissing):
        repository.point(SESSION)


class RefreshedUnderTheList(MemoryStore):
    """When leases are listed next, one is refreshed half way, so that the listing that goes on
    sees neither the old object nor the new one: a listing is no snapshot."""

    lease: Lease | None = None
    due = False

    def list(self, prefix: str) -> Iterator[StoredObject]:
        if prefix.startswith("leases") and self.lease is not None and self.due:
            self.due = False
            self.lease.refresh()
            return
        yield from super().list(prefix)


def test_a_lease_refreshed_under_one_listing_is_seen() -> None:
    store = RefreshedUnderTheList()
    repository = new_repository(store)
    store.lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 4), repository.clock)
    store.due = True
    assert [(lease.session, lease.epoch) for lease in read_leases(repository.sealed)] == [
        (SESSION, 4)
    ]
    assert not store.due


class RefreshedUnderTheReading(MemoryStore):
    """A lease is refreshed so many times just when somebody reads its object."""

    lease: Lease | None = None
    times = 0

    def get(self, key: str) -> bytes:
        lease, self.lease = self.lease, None  # which looks at its own object
        if key.startswith("leases/") and lease is not None and self.times:
            self.times -= 1
            lease.refresh()
        self.lease = lease
        return super().get(key)


@pytest.mark.parametrize("times", [1, 19, 1000])
def test_a_lease_refreshed_under_the_reading_is_not_missing(times: int) -> None:
    """Whoever is never quick enough to read it takes it for one that has seen nothing."""
    store = RefreshedUnderTheReading()
    repository = new_repository(store)
    store.lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 4), repository.clock)
    store.times = times
    (lease,) = read_leases(repository.sealed)
    assert lease.session == SESSION
    assert bool(lease.problem) is (times == 1000)
    assert lease.epoch == (0 if times == 1000 else 4)


class AddOnly(MemoryStore):
    """Refuses to delete until it is allowed."""

    allowed = False

    def delete(self, key: str) -> None:
        if not self.allowed:
            raise StoreReadOnly("add only")
        super().delete(key)


def test_who_may_not_delete_says_that_it_is_over(clock: StandingClock) -> None:
    """So nobody waits for its lease, nor takes it for a session that died."""
    store = AddOnly()
    repository = new_repository(store, clock)
    point = back_up(repository, "vm", random_disk(1 << 16, 1))
    (lease,) = read_leases(repository.sealed)
    assert lease.ended
    assert lease.looks_expired(NOON)
    assert lease.pins == ()
    store.allowed = True
    end_over(repository.sealed, [lease], BY, NOON)
    assert read_leases(repository.sealed) == []
    assert read_note(repository.sealed, point.point_id, UNRELEASED) is None
    assert repository.point(point.point_id) == point
    assert_clean(repository)


def test_whoever_says_so_for_another_costs_it_its_backup_and_no_more(
    repository: Repository,
) -> None:
    """Any agent can put such a lease: the session must not publish behind the collector's back."""
    with repository.begin_backup("vm") as session:
        name = f"{session.point_id.hex()}-ffffffff"
        own = GOOD | {"session": session.point_id, "pins": [], "ended": True}
        repository.sealed.put(Kind.LEASE, name, encode_record(own))
        end_over(repository.sealed, read_leases(repository.sealed), BY, NOON)
        with pytest.raises(SessionRevoked):
            session.publish(time=None, label="")
    with pytest.raises(ObjectMissing):
        repository.point(session.point_id)
    assert read_leases(repository.sealed) == []
    assert_clean(repository)
