"""Points go and held ones do not, whoever dies at whichever call to the store.

Of 52 mutants of `removal.py` and `leftovers.py` those live on that change the size of a batch, a
count nobody reads, the name in a void, `frozen`, or what is done where an object was spoiled in
the very moment in which its point went.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from backpoint_repo.errors import ObjectMissing, SessionRevoked, StoreReadOnly
from backpoint_repo.format import Kind
from backpoint_repo.lease import BACKUP, Lease, LeaseTerms
from backpoint_repo.lease_book import UNRELEASED, read_leases, revoke
from backpoint_repo.pin import Pin
from backpoint_repo.point_hold import REMOVING, Hold, put_hold, read_holds
from backpoint_repo.point_note import AFTERMATH, PointNote, put_note
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.retention import removal
from backpoint_repo.retention.leftovers import drop_leftovers
from backpoint_repo.retention.removal import UNDER_WAY, remove_points
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    NOON,
    StandingClock,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    reopened,
)
from synthetic_disk import random_disk

HOLDER = "00112233445566ff"


class Stopped(Exception):
    """The process died here."""


class WatchedStore:
    """A store that calls back before and after each call, with its number from 0."""

    def __init__(self, store: Store, watch: Callable[[int], None]) -> None:
        self._store = store
        self._watch = watch
        self.calls = 0

    def _called(self) -> None:
        self._watch(self.calls)
        self.calls += 1

    @property
    def address(self) -> str:
        return self._store.address

    @property
    def lanes(self) -> int:
        return self._store.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        self._called()
        self._store.put(key, pieces)

    def get(self, key: str) -> bytes:
        self._called()
        return self._store.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self._called()
        return self._store.get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        size = self.size(key)
        return Tail(size, self.get_range(key, max(0, size - length), length))

    def size(self, key: str) -> int:
        self._called()
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self._called()
        return iter(list(self._store.list(prefix)))

    def delete(self, key: str) -> None:
        self._called()
        self._store.delete(key)


class FixedStore(MemoryStore):
    """Of somebody who may only add."""

    def delete(self, key: str) -> None:
        raise StoreReadOnly(f"cannot delete {key}: Permission denied")


def watched(repository: Repository, watch: Callable[[int], None]) -> SealedStore:
    sealed = repository.sealed
    store = WatchedStore(sealed.store, watch)
    return SealedStore(store, sealed.keyring, sealed.repository_id, sealed.packer)


def points_of(repository: Repository) -> set[bytes]:
    return {point.point_id for point in reopened(repository).catalog.refresh()}


def filled(store: Store | None = None, points: int = 3) -> tuple[Repository, list[bytes]]:
    """Points with a note each; the last one was revoked too late: it must leave a void."""
    repository = new_repository(store or MemoryStore(), StandingClock())
    ids = [back_up(repository, "vm", random_disk(1 << 13, n)).point_id for n in range(points)]
    for point_id in ids:
        put_note(repository.sealed, PointNote(point_id, AFTERMATH, NOON, {}))
    assert not revoke(repository.sealed, ids[-1], bytes(16), NOON)
    return repository, ids


def test_points_go_with_their_notes(store: Store) -> None:
    """What the other points need stays; the lease is given back; a void stands where one must."""
    repository, ids = filled(store, 4)
    told: list[int] = []
    done = remove_points(repository.sealed, ids[1:], repository.clock, told.append)
    assert done.removed == tuple(ids[1:])
    assert not done.spared
    assert sum(told) == 3
    assert points_of(repository) == {ids[0]}
    assert keys_of(store, Kind.NOTE) == [f"notes/{ids[0].hex()}-{AFTERMATH}"]
    assert keys_of(store, Kind.LEASE) == []
    assert sorted(keys_of(store, Kind.POINT)) == sorted(
        f"points/{left.hex()}" for left in (ids[0], ids[3])
    )
    again = remove_points(repository.sealed, ids[1:], repository.clock)
    assert again.removed == ()
    assert_clean(repository)


def test_what_must_stay_is_spared_and_told() -> None:
    """Held, unreadable, or with a session that has not given its lease back."""
    repository, ids = filled(points=5)
    sealed = repository.sealed
    put_hold(sealed, Hold(ids[0], HOLDER, "an audit", NOON))
    put_hold(sealed, Hold(ids[1], HOLDER, "last week's", NOON - 9, NOON - 1))
    put_note(sealed, PointNote(ids[2], f"hold{HOLDER}", NOON, {"why": 1}))
    lease = Lease(sealed, ids[3], LeaseTerms(BACKUP, 0), repository.clock)
    done = remove_points(sealed, ids, repository.clock)
    lease.release()
    assert set(done.removed) == {ids[1], ids[4]}
    assert done.spared[ids[0]] == "held: an audit"
    assert "cannot be read" in done.spared[ids[2]]
    assert done.spared[ids[3]] == UNDER_WAY
    assert points_of(repository) == {ids[0], ids[2], ids[3]}


def test_a_point_that_cannot_be_read_is_spared() -> None:
    repository, ids = filled()
    sealed = repository.sealed
    key = f"points/{ids[0].hex()}"
    data = sealed.store.get(key)
    sealed.store.delete(key)
    sealed.store.put(key, [data[:-1] + bytes([data[-1] ^ 1])])
    done = remove_points(sealed, ids, repository.clock)
    assert list(done.spared) == [ids[0]]
    assert key in done.spared[ids[0]]
    assert key in keys_of(sealed.store, Kind.POINT)


def test_without_the_right_to_delete_nothing_is_touched() -> None:
    store = FixedStore()
    repository = new_repository(store, StandingClock())
    ids = [back_up(repository, "vm", random_disk(1 << 13, n)).point_id for n in range(2)]
    for key in keys_of(store, Kind.LEASE):
        MemoryStore.delete(store, key)  # a collector clears up what could not be given back
    before = {f.key for f in repository.sealed.store.list("") if "leases" not in f.key}
    with pytest.raises(StoreReadOnly, match="right to delete"):
        remove_points(repository.sealed, ids, repository.clock)
    after = {f.key for f in repository.sealed.store.list("") if "leases" not in f.key}
    assert after == before


def test_many_points_go_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "BATCH_POINTS", 2)
    repository, ids = filled(points=5)
    told: list[int] = []
    done = remove_points(repository.sealed, ids, repository.clock, told.append)
    assert set(done.removed) == set(ids)
    assert told == [2, 2, 1]


def calls_of(work: Callable[[SealedStore], object], repository: Repository) -> int:
    store = watched(repository, lambda _: None)
    work(store)
    assert isinstance(store.store, WatchedStore)
    return store.store.calls


def test_a_removal_that_dies_anywhere_is_finished_by_the_next() -> None:
    """At each call to the store. Until then all is clean, and what is left is no point by halves.

    The threads of a lease call the store only after a minute, so the calls are always the same.
    """

    def remove(sealed: SealedStore) -> None:
        remove_points(sealed, ids[1:], StandingClock())

    repository, ids = filled()
    calls = calls_of(remove, repository)
    assert calls > 20
    for number in range(calls):
        repository, ids = filled()

        def die(at: int, number: int = number) -> None:
            if at >= number:
                raise Stopped

        with pytest.raises(Stopped):
            remove(watched(repository, die))
        assert ids[0] in points_of(repository)
        remove(repository.sealed)
        drop_leftovers(repository.sealed, reopened(repository).catalog, repository.clock)
        left = [key for key in keys_of(repository.sealed.store, Kind.NOTE) if "hold" not in key]
        assert points_of(repository) == {ids[0]}
        held = [lease for lease in read_leases(repository.sealed) if ids[2] in lease.pins]
        if not held:
            assert left == [f"notes/{ids[0].hex()}-{AFTERMATH}"], number
            assert f"points/{ids[2].hex()}" in keys_of(repository.sealed.store, Kind.POINT)
        for lease in held:
            revoke(repository.sealed, lease.session, bytes(16), NOON)
        drop_leftovers(repository.sealed, reopened(repository).catalog, repository.clock)
        assert f"points/{ids[2].hex()}" in keys_of(repository.sealed.store, Kind.POINT)
        left = keys_of(repository.sealed.store, Kind.NOTE)
        assert left == [f"notes/{ids[0].hex()}-{AFTERMATH}"], number
    assert_clean(repository)


def test_a_hold_counts_whenever_it_is_put_and_whoever_dies() -> None:
    """A holder comes at each call of a remover, which dies at each later one: a hold that was said
    to be there has its point, and the point has its notes, as soon as the next prune is done."""
    repository, ids = filled()

    def remove(sealed: SealedStore) -> None:
        remove_points(sealed, ids[2:], StandingClock())

    calls = calls_of(remove, repository)
    outcomes: set[object] = set()
    for comes, dies in itertools.combinations(range(calls + 2), 2):
        repository, ids = filled()
        held: list[bool] = []

        def act(
            at: int,
            comes: int = comes,
            dies: int = dies,
            repository: Repository = repository,
            ids: list[bytes] = ids,
            held: list[bool] = held,
        ) -> None:
            if at == comes:
                try:
                    put_hold(repository.sealed, Hold(ids[2], HOLDER, "", NOON))
                except ObjectMissing:
                    held.append(False)
                else:
                    held.append(True)
            if at >= dies:
                raise Stopped

        try:
            remove(watched(repository, act))
        except Stopped:
            outcomes.add("died")
        outcomes.update(held)
        if held == [True]:
            assert ids[2] in points_of(repository), (comes, dies)
            remove(repository.sealed)
            assert ids[2] in points_of(repository)
            assert [hold.point_id for hold in read_holds(repository.sealed)] == [ids[2]]
    assert outcomes == {True, False, "died"}


def put_bare_hold(repository: Repository, point_id: bytes) -> bool:
    """As a program does that knows nothing of removers' leases; whether it saw the point."""
    facts = {"why": "", "since": NOON, "until": None}
    put_note(repository.sealed, PointNote(point_id, f"hold{HOLDER}", NOON, facts))
    return point_id in points_of(repository)


def put_void_there(repository: Repository, point_id: bytes, _: bytes) -> None:
    void = encode_record({"revoked": NOON, "by": bytes(16)})
    repository.sealed.put(Kind.VOID, point_id.hex(), void)


def drop_unreleased(repository: Repository, point_id: bytes, _: bytes) -> None:
    repository.sealed.delete(Kind.NOTE, f"{point_id.hex()}-{UNRELEASED}")


def put_point_again(repository: Repository, point_id: bytes, stored: bytes) -> None:
    """Another remover, which had it in its hands too."""
    repository.sealed.store.put(f"points/{point_id.hex()}", [stored])


@pytest.mark.parametrize("meanwhile", [None, put_void_there, drop_unreleased, put_point_again])
def test_a_holder_who_knows_nothing_of_leases_is_seen_too(
    meanwhile: Callable[[Repository, bytes, bytes], None] | None,
) -> None:
    """It puts its note and sees the point: then the point is put back, whatever others do while it
    is gone."""
    seen = [False]
    for comes in itertools.count():
        repository, ids = filled()
        store = repository.sealed.store
        stored = store.get(f"points/{ids[2].hex()}")
        seen = []
        done: list[bool] = []

        def come(
            at: int,
            comes: int = comes,
            repository: Repository = repository,
            point_id: bytes = ids[2],
            stored: bytes = stored,
            seen: list[bool] = seen,
            done: list[bool] = done,
        ) -> None:
            if at == comes:
                seen.append(put_bare_hold(repository, point_id))
            gone = f"points/{point_id.hex()}" not in keys_of(repository.sealed.store, Kind.POINT)
            if gone and seen == [True] and meanwhile is not None and not done:
                done.append(True)
                meanwhile(repository, point_id, stored)

        result = remove_points(watched(repository, come), ids[2:], repository.clock)
        if seen != [True]:
            break  # the point had gone before it came
        assert ids[2] in points_of(repository), comes
        assert result.removed == ()
        notes = keys_of(store, Kind.NOTE)
        assert f"notes/{ids[2].hex()}-{UNRELEASED}" in notes
        assert_clean(repository)
    assert comes > 5


def test_a_remover_that_was_ended_deletes_nothing_more() -> None:
    """It slept; its lease was taken for dead, and somebody holds the point since."""
    repository, ids = filled()
    sealed = repository.sealed
    ended: list[bool] = []

    def end(_at: int) -> None:
        for lease in read_leases(sealed):
            if lease.purpose == REMOVING and lease.pins and not ended:
                ended.append(revoke(sealed, lease.session, bytes(16), NOON))
                put_hold(sealed, Hold(ids[0], HOLDER, "", NOON))

    with pytest.raises(SessionRevoked, match="run it again"):
        remove_points(watched(repository, end), ids, repository.clock)
    assert ended
    assert points_of(repository) == set(ids)
    assert_clean(repository)


def test_a_remover_that_was_ended_before_it_puts_back_says_so() -> None:
    """It slept after deleting a point that is held; by now a collector may have been there."""
    repository, ids = filled()
    sealed = repository.sealed
    leases = set[bytes]()

    def end(_at: int) -> None:
        removers = {lease.session for lease in read_leases(sealed) if lease.purpose == REMOVING}
        leases.update(removers)
        if ids[0] not in points_of(repository) and removers:
            put_bare_hold(repository, ids[0])
            for session in removers:
                revoke(sealed, session, bytes(16), NOON)

    with pytest.raises(SessionRevoked, match=ids[0].hex()):
        remove_points(watched(repository, end), ids[:1], repository.clock)
    assert leases
    assert points_of(repository) == set(ids)
    assert_clean(repository)


def test_a_remover_that_was_ended_leaves_alone_what_came_back() -> None:
    """Without its lease nobody sees it: the point that a sleeping session has put again may be held
    by now."""
    repository, ids = filled()
    calls = calls_of(lambda sealed: remove_points(sealed, ids[2:], StandingClock()), repository)
    outcomes = set()
    for comes in range(calls):
        repository, ids = filled()
        sealed, key = repository.sealed, f"points/{ids[2].hex()}"
        stored = sealed.store.get(key)

        def come_back(
            at: int,
            comes: int = comes,
            sealed: SealedStore = sealed,
            key: str = key,
            stored: bytes = stored,
        ) -> None:
            if at == comes and key not in keys_of(sealed.store, Kind.POINT):
                for lease in read_leases(sealed):
                    revoke(sealed, lease.session, bytes(16), NOON)
                sealed.store.put(key, [stored])
                put_hold(sealed, Hold(bytes.fromhex(key[7:]), HOLDER, "", NOON))

        try:
            remove_points(watched(repository, come_back), ids[2:], repository.clock)
        except SessionRevoked:
            outcomes.add("ended")
        if read_holds(sealed):
            assert ids[2] in points_of(repository), comes
            outcomes.add("held")
        assert_clean(repository)
    assert outcomes == {"ended", "held"}


def test_two_removers_at_once() -> None:
    """The second runs through at each call of the first: all go, and the void is there."""
    repository, ids = filled()
    calls = calls_of(lambda sealed: remove_points(sealed, ids, StandingClock()), repository)
    for comes in range(calls):
        repository, ids = filled()
        second: list[tuple[bytes, ...]] = []

        def act(
            at: int,
            comes: int = comes,
            repository: Repository = repository,
            ids: object = ids,
            second: list[tuple[bytes, ...]] = second,
        ) -> None:
            if at == comes:
                assert isinstance(ids, list)
                second.append(remove_points(repository.sealed, ids, repository.clock).removed)
                drop_leftovers(repository.sealed, reopened(repository).catalog, repository.clock)

        first = remove_points(watched(repository, act), ids, repository.clock).removed
        assert points_of(repository) == set()
        # One at most is told by both: it was there when the first had looked.
        assert set(first).union(*second) == set(ids)
        assert len(first) + sum(map(len, second)) <= len(ids) + 1
        assert f"points/{ids[2].hex()}" in keys_of(repository.sealed.store, Kind.POINT), comes
        drop_leftovers(repository.sealed, reopened(repository).catalog, repository.clock)
        assert keys_of(repository.sealed.store, Kind.NOTE) == []


def test_leftovers_are_only_what_no_point_has() -> None:
    """Also where a catalogue claims that a point is gone: the object decides."""
    repository, ids = filled()
    sealed = repository.sealed
    sealed.put(Kind.CATALOG, "ab" * 16, encode_record({"points": [[ids[0]]]}))
    lost = bytes(range(16))
    put_note(sealed, PointNote(lost, AFTERMATH, NOON, {}))
    put_note(sealed, PointNote(lost, UNRELEASED, NOON, {}))
    put_note(sealed, PointNote(lost, f"hold{HOLDER}", NOON, {}))
    before = keys_of(sealed.store, Kind.NOTE)
    # Another remover may be about to put it back.
    lease = Lease(sealed, bytes(16), LeaseTerms(REMOVING, 0, (Pin(lost),)), repository.clock)
    assert drop_leftovers(sealed, reopened(repository).catalog, repository.clock) == 0
    lease.release()
    lease = Lease(sealed, bytes(16), LeaseTerms(BACKUP, 0, (Pin(lost),)), repository.clock)
    assert drop_leftovers(sealed, reopened(repository).catalog, repository.clock) == 2
    gone = set(before) - set(keys_of(sealed.store, Kind.NOTE))
    assert gone == {f"notes/{lost.hex()}-{topic}" for topic in (AFTERMATH, UNRELEASED)}
    assert f"points/{lost.hex()}" in keys_of(sealed.store, Kind.POINT)
    assert points_of(repository) == set(ids)
