"""Leases: one object at any time, numbered, gone when released."""

from __future__ import annotations

import pytest

from backpoint_repo.errors import StoreReadOnly, StoreUnavailable
from backpoint_repo.format import Kind
from backpoint_repo.lease import BACKUP, LIFETIME_S, MOUNT, REFRESH_S, Lease, LeaseTerms
from backpoint_repo.pin import Pin
from backpoint_repo.record import Record
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Piece
from backpoint_repo.store.memory import MemoryStore
from small_repository import NOON, StandingClock, new_repository

SESSION = bytes(range(16))
PIN = Pin(b"p" * 16, ((4096, b"r" * 32),), (b"c" * 32,))


def names(repository: Repository) -> list[str]:
    return sorted(repository.sealed.names(Kind.LEASE))


def newest(repository: Repository) -> Record:
    return repository.sealed.get_record(Kind.LEASE, names(repository)[-1])


def test_what_a_lease_says(repository: Repository, clock: StandingClock) -> None:
    lease = Lease(repository.sealed, SESSION, LeaseTerms(MOUNT, 7, (PIN,)), clock)
    record = newest(repository)
    assert record.get("session", bytes) == SESSION
    assert record.get("purpose", str) == MOUNT
    assert record.natural("epoch") == 7
    assert record.items("pins", bytes) == [PIN.point_id]
    assert record.items("roots", list) == [[4096, b"r" * 32]]
    assert record.items("chunks", bytes) == [b"c" * 32]
    assert record.get("refreshed", float) == NOON
    assert record.get("lifetime_s", float) == LIFETIME_S
    lease.release()
    assert names(repository) == []


def test_refreshing_leaves_one_object_with_a_higher_number(
    repository: Repository, clock: StandingClock
) -> None:
    lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 0), clock)
    seen = names(repository)
    for step in range(1, 20):
        clock.now += 60
        lease.refresh(LeaseTerms(BACKUP, step) if step % 2 else None)
        seen += names(repository)
        assert newest(repository).get("refreshed", float) == clock.now
        assert newest(repository).get("started", float) == NOON
        assert newest(repository).natural("epoch") == step - (step % 2 == 0)
    assert seen == sorted(set(seen))
    assert len(seen) == 20
    lease.release()
    lease.release()
    lease.refresh()
    assert names(repository) == []


class Flaky(MemoryStore):
    """Refuses puts, or deletes, while told to; or puts, and does not answer."""

    puts = True
    answers = True
    deletes = True

    def put(self, key: str, pieces: list[Piece]) -> None:
        if not self.puts and key.startswith("leases/"):
            raise StoreUnavailable("no answer")
        super().put(key, pieces)
        if not self.answers:
            raise StoreUnavailable("no answer")

    def delete(self, key: str) -> None:
        if not self.deletes:
            raise StoreReadOnly("append only")
        super().delete(key)


def test_a_refresh_that_fails_changes_nothing(clock: StandingClock) -> None:
    """Above all it must not claim a trash epoch that no lease object names."""
    store = Flaky()
    repository = new_repository(store)
    lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 1), clock)
    store.puts = False
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            lease.refresh(LeaseTerms(BACKUP, 9))
    assert lease.terms.epoch == 1
    store.puts = True
    lease.refresh()
    assert newest(repository).natural("epoch") == 1
    assert len(names(repository)) == 1
    lease.release()
    assert names(repository) == []


def test_a_refresh_that_arrived_unanswered_does_not_hide_the_next(clock: StandingClock) -> None:
    """Its number is taken, by other terms: pins that are said later must be in an object."""
    store = Flaky()
    repository = new_repository(store)
    lease = Lease(repository.sealed, SESSION, LeaseTerms(MOUNT, 1), clock)
    store.answers = False
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            lease.refresh(LeaseTerms(MOUNT, 2))
    store.answers = True
    lease.refresh(LeaseTerms(MOUNT, 2, (PIN,)))
    assert newest(repository).items("pins", bytes) == [PIN.point_id]
    assert not lease.lost
    assert len(names(repository)) == 1
    lease.release()
    assert names(repository) == []


def test_a_credential_that_may_not_delete_holds_a_lease_too(clock: StandingClock) -> None:
    store = Flaky()
    repository = new_repository(store)
    store.deletes = False
    lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 1), clock)
    lease.refresh(LeaseTerms(BACKUP, 2))
    assert newest(repository).natural("epoch") == 2
    lease.release()


def test_the_thread_that_refreshes_ends_with_the_lease(
    repository: Repository, clock: StandingClock
) -> None:
    lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 0), clock)
    thread = lease.keep_fresh(lambda error: None)
    assert thread.is_alive()
    lease.release()
    thread.join(10)
    assert not thread.is_alive()
    assert REFRESH_S * 5 < LIFETIME_S


def test_a_lease_that_stands_is_not_lost(repository: Repository, clock: StandingClock) -> None:
    lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 0), clock)
    for act in (lease.look, lease.refresh, lease.look):
        act()
        assert not lease.lost
    lease.release()
    lease.look()
    assert not lease.lost


@pytest.mark.parametrize("by_refresh", [False, True])
def test_a_lease_that_somebody_ended_is_lost_for_good(
    repository: Repository, clock: StandingClock, by_refresh: bool
) -> None:
    """Also where it stands again under its next number: what happened in between is not known."""
    lease = Lease(repository.sealed, SESSION, LeaseTerms(BACKUP, 0), clock)
    (name,) = names(repository)
    repository.sealed.delete(Kind.LEASE, name)
    if by_refresh:
        lease.refresh()
    else:
        lease.look()
    assert lease.lost
    lease.refresh()
    lease.look()
    assert lease.lost
    assert len(names(repository)) == 1
    lease.release()
    assert names(repository) == []
