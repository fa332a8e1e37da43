"""Points go: what nobody holds is deleted, in an order in which no crash and no race loses a hold.

The session's lease pins what it is about to remove; then it looks for holds. Who puts a hold looks
for such leases after that, so one of the two sees the other. After deleting, holds are looked for
once more, for holders who know nothing of that, and the same object is put back. Frees no space;
which points are to go is decided elsewhere. What a crash leaves is for `leftovers.py`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    SessionRevoked,
    StoreReadOnly,
    UnknownFormat,
)
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.format import Kind, object_key, parse_header
from backpoint_repo.lease import SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.lease_book import UNRELEASED, end_over, put_void, read_leases
from backpoint_repo.pin import Pin, pin_of
from backpoint_repo.point import POINT_ID_SIZE, decode_point
from backpoint_repo.point_hold import REMOVING, held_points, is_hold
from backpoint_repo.point_note import PointNote, note_name, put_note
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import open_object

BATCH_POINTS: Final = 1024
"""So many are pinned, looked at and deleted between two listings of all notes."""
BATCH_BYTES: Final = 32 << 20
UNDER_WAY: Final = "its backup is not done yet"
_ENDED: Final = (
    "this removal took longer without a sign of life than its lease allows, and somebody ended it; "
    "run it again"
)
_PUT_BACK: Final = (
    "this removal was ended by somebody while it put back points that are held: a collector may "
    "have deleted what they need, so look with `backpoint check`: "
)


@dataclass(frozen=True)
class Removal:
    """removed: ids of points. spared: by id, why a point was not removed."""

    removed: tuple[bytes, ...] = ()
    spared: Mapping[bytes, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Doomed:
    """A point that is there: its object as it is stored, and what reading it needs."""

    pin: Pin
    stored: bytes


def remove_points(
    sealed: SealedStore,
    point_ids: Iterable[bytes],
    clock: Callable[[], float],
    advance: Callable[[int], None] = lambda _: None,
) -> Removal:
    """Remove these points; one that is gone already is passed over.

    advance: is called with the number of points dealt with. A second run finishes what a crash
    interrupted. Raises StoreReadOnly without the right to delete, SessionRevoked where somebody
    ended this session, and what a store raises.
    """
    wanted = list(dict.fromkeys(point_ids))
    if not wanted:
        return Removal()
    refuse_unknown_features(sealed.store)
    # Before notes are listed: a session that is ended leaves the note `unreleased` first.
    leases = read_leases(sealed)
    under_way = {lease.session for lease in leases if not lease.ended}
    remover = _Remover(sealed, clock)
    spared = {point_id: UNDER_WAY for point_id in wanted if point_id in under_way}
    removed: list[bytes] = []
    try:
        # Before their points go: a session that is over and has no point is given a VOID.
        with _saying_that_it_takes_a_right():
            end_over(sealed, leases, remover.session, clock())
        free = [point_id for point_id in wanted if point_id not in spared]
        for batch in _batches(sealed, free, spared):
            done = remover.remove(batch)
            removed += done.removed
            spared.update(done.spared)
            advance(len(batch))
    finally:
        remover.close()
    return Removal(tuple(removed), spared)


class _Remover:
    """The session that removes. Not thread-safe."""

    def __init__(self, sealed: SealedStore, clock: Callable[[], float]) -> None:
        self._sealed = sealed
        self._clock = clock
        self.session = secrets.token_bytes(POINT_ID_SIZE)
        self._lease = Lease(sealed, self.session, LeaseTerms(REMOVING, SEEN_ALL), clock)
        # A refresh that fails needs no word: the lease is looked at before each deletion.
        self._lease.keep_fresh(lambda _: None)

    def close(self) -> None:
        self._lease.release()

    def remove(self, batch: Sequence[_Doomed]) -> Removal:
        """These points, but what is held by now."""
        pins = tuple(doomed.pin for doomed in batch)
        self._lease.refresh(LeaseTerms(REMOVING, SEEN_ALL, pins))
        ids = {pin.point_id for pin in pins}
        names = list(self._sealed.names(Kind.NOTE))
        spared = held_points(self._sealed, names, ids, self._clock())
        notes = _by_point(names, ids)
        deleted: dict[bytes, _Doomed] = {}
        try:
            for doomed in batch:
                if doomed.pin.point_id not in spared and self._delete(doomed):
                    deleted[doomed.pin.point_id] = doomed
        finally:
            if deleted:
                # Again: what was put on a point before it was gone, and was not seen above.
                names = list(self._sealed.names(Kind.NOTE))
                for point_id, topics in _by_point(names, deleted).items():
                    notes[point_id] |= topics
                spared.update(self._put_back(deleted, names, notes))
        removed = [point_id for point_id in deleted if point_id not in spared]
        for point_id in removed:
            self._clear(point_id, notes[point_id])
        return Removal(tuple(removed), spared)

    def _delete(self, doomed: _Doomed) -> bool:
        """False where something else is there by now. Raises SessionRevoked, StoreReadOnly."""
        self._lease.look()
        if self._lease.lost:
            raise SessionRevoked(_ENDED)
        key = object_key(Kind.POINT, doomed.pin.point_id.hex())
        try:
            if self._sealed.store.get(key) != doomed.stored:
                return False
            with _saying_that_it_takes_a_right():
                self._sealed.store.delete(key)
        except ObjectMissing:
            return False
        return True

    def _put_back(
        self,
        deleted: Mapping[bytes, _Doomed],
        names: Iterable[str],
        notes: Mapping[bytes, Collection[str]],
    ) -> dict[bytes, str]:
        held = held_points(self._sealed, names, deleted, self._clock())
        for point_id in held:
            self._put_again(deleted[point_id])
            if UNRELEASED in notes[point_id]:
                # Another remover may have taken it for what a crash left.
                with contextlib.suppress(ObjectExists):
                    put_note(self._sealed, PointNote(point_id, UNRELEASED, self._clock(), {}))
        if held:
            self._lease.look()
            if self._lease.lost:
                raise SessionRevoked(_PUT_BACK + ", ".join(point_id.hex() for point_id in held))
        return held

    def _put_again(self, doomed: _Doomed) -> None:
        key = object_key(Kind.POINT, doomed.pin.point_id.hex())
        while True:
            try:
                self._sealed.store.put(key, [doomed.stored])
            except ObjectExists:
                # A void may go: this session has published, and nobody else has its id.
                with contextlib.suppress(ObjectMissing):
                    if not _is_void(self._sealed, doomed.pin.point_id):
                        return
                    self._sealed.store.delete(key)
            else:
                return

    def _clear(self, point_id: bytes, topics: Collection[str]) -> None:
        if UNRELEASED in topics:
            # Its session may have put it again just now; nobody holds what this lease pins.
            while not put_void(self._sealed, point_id, self.session, self._clock()):
                self._lease.look()
                if self._lease.lost:
                    raise SessionRevoked(_ENDED)
                self._sealed.delete(Kind.POINT, point_id.hex())
        for topic in sorted(topics, key=UNRELEASED.__eq__):
            self._sealed.delete(Kind.NOTE, note_name(point_id, topic))


@contextlib.contextmanager
def _saying_that_it_takes_a_right() -> Iterator[None]:
    try:
        yield
    except StoreReadOnly as error:
        raise StoreReadOnly(
            f"no point can be removed without the right to delete: {error}"
        ) from error


def _batches(
    sealed: SealedStore, ids: Sequence[bytes], spared: dict[bytes, str]
) -> Iterator[list[_Doomed]]:
    """What is there of these points; why one cannot be read is added to `spared`."""
    batch: list[_Doomed] = []
    size = 0
    for point_id in ids:
        try:
            doomed = _loaded(sealed, point_id)
        except (ObjectDamaged, UnknownFormat) as error:
            spared[point_id] = str(error)
            continue
        if doomed is None:
            continue
        batch.append(doomed)
        size += len(doomed.stored)
        if len(batch) == BATCH_POINTS or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _loaded(sealed: SealedStore, point_id: bytes) -> _Doomed | None:
    """None where there is no such point (any more)."""
    key = object_key(Kind.POINT, point_id.hex())
    try:
        stored = sealed.store.get(key)
    except ObjectMissing:
        return None
    if parse_header(stored, key) is Kind.VOID:
        return None
    payload = open_object(Kind.POINT, key, stored, sealed.keyring.meta_key, sealed.packer)
    return _Doomed(pin_of(decode_point(point_id, payload)), stored)


def _is_void(sealed: SealedStore, point_id: bytes) -> bool:
    """Raises ObjectMissing."""
    try:
        return sealed.get_either(point_id.hex(), Kind.POINT, Kind.VOID)[0] is Kind.VOID
    except (ObjectDamaged, UnknownFormat):
        return False


def _by_point(names: Iterable[str], ids: Iterable[bytes]) -> dict[bytes, set[str]]:
    """Topics of these points' notes, without holds: their holders drop those."""
    found: dict[str, set[str]] = {point_id.hex(): set() for point_id in ids}
    for name in names:
        point, dash, topic = name.partition("-")
        if dash and point in found and not is_hold(name):
            found[point].add(topic)
    return {bytes.fromhex(point): topics for point, topics in found.items()}
