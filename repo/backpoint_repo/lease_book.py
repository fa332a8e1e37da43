"""Everybody's leases as others see them: who is there, how far they have seen, what they hold fast.

A lease that cannot be read counts as one that lives and has seen nothing. Decides how a session is
ended from outside (`revoke`), so that one key decides between it and a publication. Whether a lease
has expired is a guess by clocks: acting on a wrong one costs a backup or a mount's protection, and
never a chunk of a point.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    RepositoryError,
    UnknownFormat,
)
from backpoint_repo.format import ID_SIZE, MAX_DISK_SIZE, Kind, object_key
from backpoint_repo.point import POINT_ID_SIZE, is_calendar_time
from backpoint_repo.point_note import PointNote, put_note
from backpoint_repo.record import Record, encode_record
from backpoint_repo.sealed_store import SealedStore

_NAME: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{8})")
UNRELEASED: Final = "unreleased"
"""The topic of a note on a point whose session never gave its lease back. It may be on a machine
that sleeps between its put and the answer, and put the point again: whoever removes the point puts
a VOID in its place."""
_AHEAD_MAX_S: Final = 86400.0
"""A lease refreshed later than a day from now would never expire."""
_LIFETIME_MAX_S: Final = 86400.0
_SHOWN_MAX: Final = 64
"""Letters of a host's name: what strangers write can be of any length."""
_TRIES: Final = 20
"""Readings of the list while leases are refreshed under it: one a minute each."""


@dataclass(frozen=True)
class HeldLease:
    """pins: ids of points. roots: (size in bytes, map root) and chunks: ids, of all its pins.
    started, refreshed: by the session's clock. problem: why it cannot be read, for the user. ended:
    the session has said that it is over, because it may not delete its lease (`end_over`)."""

    session: bytes
    number: int
    purpose: str = ""
    epoch: int = 0
    pins: tuple[bytes, ...] = ()
    roots: tuple[tuple[int, bytes], ...] = ()
    chunks: tuple[bytes, ...] = ()
    host: str = ""
    pid: int = 0
    started: float = 0.0
    refreshed: float = 0.0
    lifetime_s: float = 0.0
    problem: str = ""
    ended: bool = False

    def looks_expired(self, now: float) -> bool:
        """By two clocks that may disagree. One that cannot be read never does: see `revoke`."""
        silent_s = now - self.refreshed
        silent = silent_s > self.lifetime_s or silent_s < -_AHEAD_MAX_S
        return not self.problem and (self.ended or silent)

    @property
    def title(self) -> str:
        """For people."""
        if self.problem:
            return f"session {self.session.hex()[:8]} (its lease cannot be read: {self.problem})"
        who = f"{self.purpose[:_SHOWN_MAX]} on {self.host[:_SHOWN_MAX]}"
        return f"{who}, process {self.pid} ({self.session.hex()[:8]})"


def read_leases(sealed: SealedStore) -> list[HeldLease]:
    """The newest of each session, by session. Nobody who holds a lease all the while is missing."""
    for _ in range(_TRIES):
        leases, moved = _read_once(sealed)
        if not moved:
            return leases
    return leases


def revoke(sealed: SealedStore, session: bytes, by: bytes, now: float) -> bool:
    """End a session: from now on it cannot publish. by: who does it, a session id.

    False where it has published already; the point says so then (`UNRELEASED`). Raises what a store
    raises.
    """
    while not (voided := put_void(sealed, session, by, now)):
        with contextlib.suppress(ObjectExists):
            put_note(sealed, PointNote(session, UNRELEASED, now, {}))
        # Who removes a point looks for the note when the point is gone; so either they have seen
        # it, or the point was gone before it was there, and the key is free for a VOID.
        if _is_taken(sealed, session):
            break
    # Only after that: as long as the lease is there, nobody deletes what the session relies on.
    for name in list(sealed.names(Kind.LEASE)):
        if name.startswith(session.hex()):
            sealed.delete(Kind.LEASE, name)
    return voided


def end_over(sealed: SealedStore, leases: Iterable[HeldLease], by: bytes, now: float) -> None:
    """Delete what sessions have left that say that they are over. by: as of `revoke`.

    One that has published has its answer, so its point needs no note; one that has not gets a VOID,
    because others than the session could have said it. Raises what a store raises.
    """
    sessions = {lease.session for lease in leases if lease.ended}
    for _, answer in sealed.each(sessions, lambda session: put_void(sealed, session, by, now)):
        _raise_failed(answer)
    names = [name for name in sealed.names(Kind.LEASE) if _NAME.fullmatch(name)]
    left = [name for name in names if bytes.fromhex(name[: 2 * POINT_ID_SIZE]) in sessions]
    for _, gone in sealed.each(left, lambda name: sealed.delete(Kind.LEASE, name)):
        _raise_failed(gone)


def _raise_failed(answer: object) -> None:
    if isinstance(answer, RepositoryError):
        raise answer


def put_void(sealed: SealedStore, session: bytes, by: bytes, now: float) -> bool:
    """Take the key of a session's point; False where a point has it. by: a session id."""
    try:
        sealed.put(Kind.VOID, session.hex(), encode_record({"revoked": now, "by": by}))
    except ObjectExists:
        return _is_void(sealed, session)
    return True


def _is_taken(sealed: SealedStore, session: bytes) -> bool:
    try:
        sealed.store.size(object_key(Kind.POINT, session.hex()))
    except ObjectMissing:
        return False
    return True


def _is_void(sealed: SealedStore, session: bytes) -> bool:
    try:
        return sealed.get_either(session.hex(), Kind.POINT, Kind.VOID)[0] is Kind.VOID
    except (ObjectMissing, ObjectDamaged, UnknownFormat):
        return False  # it was published: removed meanwhile, or spoiled


def _read_once(sealed: SealedStore) -> tuple[list[HeldLease], bool]:
    """moved: a lease went away between listing and reading; it may be there under its next number.

    Two listings, because one may miss a lease that is refreshed while it runs: the new object
    behind it, the old one gone before it comes there.
    """
    newest: dict[bytes, int] = {}
    for name in [*sealed.names(Kind.LEASE), *sealed.names(Kind.LEASE)]:
        if match := _NAME.fullmatch(name):
            session, number = bytes.fromhex(match[1]), int(match[2], 16)
            newest[session] = max(number, newest.get(session, 0))
    leases, moved = [], False
    for (session, number), found in sealed.each(
        sorted(newest.items()), lambda one: _read(sealed, *one)
    ):
        if isinstance(found, HeldLease):
            leases.append(found)
        elif isinstance(found, ObjectMissing):
            moved = True
            leases.append(HeldLease(session, number, problem="it is refreshed too often"))
        elif isinstance(found, (ObjectDamaged, UnknownFormat)):
            leases.append(HeldLease(session, number, problem=str(found)))
        else:
            raise found
    return sorted(leases, key=lambda lease: lease.session), moved


def _read(sealed: SealedStore, session: bytes, number: int) -> HeldLease:
    name = f"{session.hex()}-{number:08x}"
    key = object_key(Kind.LEASE, name)
    record = sealed.get_record(Kind.LEASE, name)
    if record.get("session", bytes) != session:
        raise ObjectDamaged(f"{key}: is the lease of another session")
    pins = tuple(record.items("pins", bytes))
    chunks = tuple(record.items("chunks", bytes)) if record.optional("chunks", list) else ()
    if any(len(pin) != POINT_ID_SIZE for pin in pins) or any(len(id_) != ID_SIZE for id_ in chunks):
        raise ObjectDamaged(f"{key}: pins what is no point")
    times = record.get("started", float), record.get("refreshed", float)
    lifetime_s = record.get("lifetime_s", float)
    if not all(map(is_calendar_time, times)) or not 0 <= lifetime_s <= _LIFETIME_MAX_S:
        raise ObjectDamaged(f"{key}: is of no time that a calendar knows")
    return HeldLease(
        session,
        number,
        record.get("purpose", str),
        record.natural("epoch"),
        pins,
        _roots(record, key),
        chunks,
        record.get("host", str),
        record.natural("pid"),
        *times,
        lifetime_s,
        ended=bool(record.optional("ended", bool)),
    )


def _roots(record: Record, key: str) -> tuple[tuple[int, bytes], ...]:
    rows = record.items("roots", list) if record.optional("roots", list) else []
    roots = []
    for row in rows:
        if list(map(type, row)) != [int, bytes]:
            raise ObjectDamaged(f"{key}: pins what is no disk")
        size, root = row
        if not 0 <= size <= MAX_DISK_SIZE or len(root) != ID_SIZE:
            raise ObjectDamaged(f"{key}: pins an impossible disk")
        roots.append((size, root))
    return tuple(roots)
