"""Holds: who needs a point kept, beside the point. No retention removes a held one.

A note on the point (see `point_note.py`), one for each holder; it has no lease's lifetime, because
a session on a machine that is switched off for a month needs its point all the same. Holders that
begin with zeros are people, who name no session.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from backpoint_repo.catalog import standing_point
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    StoreUnavailable,
    UnknownFormat,
    UsageError,
)
from backpoint_repo.format import Kind
from backpoint_repo.lease_book import HeldLease, read_leases, revoke
from backpoint_repo.point import POINT_ID_SIZE
from backpoint_repo.point_note import PointNote, put_note, read_note
from backpoint_repo.sealed_store import SealedStore

REMOVING: Final = "prune"
"""Purpose of a lease that pins the points which its session is about to remove."""
_TOPIC: Final = "hold"
_HOLDER: Final = re.compile(r"[0-9a-f]{16}")
_BY_HAND: Final = "0" * 8
_NOBODY: Final = bytes(POINT_ID_SIZE)
"""Who ends a session without having one."""
_NOTE_NAME: Final = re.compile(rf"([0-9a-f]{{32}})-{_TOPIC}([0-9a-f]{{16}})")


@dataclass(frozen=True)
class Hold:
    """holder: 16 hex digits that make it this one. why: for the user. since: seconds since 1970.
    until: None for as long as it is there."""

    point_id: bytes
    holder: str
    why: str
    since: float
    until: float | None = None

    def holds_at(self, now: float) -> bool:
        """Whether the point must stay at `now`, seconds since 1970."""
        return self.until is None or now < self.until

    @property
    def by_hand(self) -> bool:
        """Whether a person put it, and no session depends on it."""
        return self.holder.startswith(_BY_HAND)


def new_hand() -> str:
    """The holder of a hold that a person is about to put."""
    return _BY_HAND + secrets.token_hex(4)


def put_hold(sealed: SealedStore, hold: Hold) -> None:
    """Harmless where this holder has one on the point already, which then stays as it is.

    Raises ObjectMissing where the point is not there (any more) or is about to go, UsageError, and
    what a store raises.
    """
    facts: dict[str, Any] = {"why": hold.why, "since": hold.since, "until": hold.until}
    with contextlib.suppress(ObjectExists):
        put_note(sealed, PointNote(hold.point_id, _topic(hold.holder), hold.since, facts))
    # Looked at only now: whoever removes points pins them first and looks for holds after that. So
    # either they see the hold, or they are seen here.
    if why := _refusal(sealed, hold.point_id, hold.since):
        with contextlib.suppress(StoreUnavailable):
            drop_hold(sealed, hold.point_id, hold.holder)
        raise ObjectMissing(f"points/{hold.point_id.hex()} {why}")


def drop_hold(sealed: SealedStore, point_id: bytes, holder: str) -> None:
    """Harmless where there is none. Raises what a store raises."""
    sealed.delete(Kind.NOTE, f"{point_id.hex()}-{_topic(holder)}")


def drop_holds(sealed: SealedStore, holder: str, keep: Collection[bytes] = ()) -> None:
    """All that a holder has, but those on the points `keep`: also what a crash left of it.

    Raises what a store raises.
    """
    for point_id, found in list(_held(sealed)):
        if found == holder and point_id not in keep:
            drop_hold(sealed, point_id, holder)


def read_holds(sealed: SealedStore) -> list[Hold]:
    """All of them on points that are there, also such whose time is over (`Hold.holds_at`).

    Those that cannot be read raise ObjectDamaged or UnknownFormat: nobody may remove the point.
    """
    held = list(_held(sealed))
    present = set(sealed.names(Kind.POINT)) if held else set()
    found = []
    for point_id, holder in held:
        # One that is dropped meanwhile holds nothing.
        if point_id.hex() in present and (note := read_note(sealed, point_id, _topic(holder))):
            found.append(_decoded(note, holder))
    return found


def held_points(
    sealed: SealedStore, names: Iterable[str], among: Collection[bytes], now: float
) -> dict[bytes, str]:
    """Why points must stay at `now`, by id; also of such whose object is not there now.

    names: of all notes, as they were just listed. A hold that cannot be read holds. Raises what a
    store raises.
    """
    found = {}
    for point_id, holder in _among(names):
        if point_id not in among:
            continue
        try:
            note = read_note(sealed, point_id, _topic(holder))
            hold = None if note is None else _decoded(note, holder)
        except (ObjectDamaged, UnknownFormat) as error:
            found[point_id] = f"a hold on it cannot be read: {error}"
        else:
            if hold is not None and hold.holds_at(now):
                found[point_id] = f"held: {hold.why}" if hold.why else "held"
    return found


def is_hold(name: str) -> bool:
    """Whether a note of this name is a hold."""
    return _NOTE_NAME.fullmatch(name) is not None


def _refusal(sealed: SealedStore, point_id: bytes, now: float) -> str:
    """Why a point cannot be held; nothing where it can."""
    for lease in _removers(sealed, point_id):
        if lease.looks_expired(now):
            # A removal that was killed. One that sleeps looks whether its lease stands before it
            # deletes, and for holds after that.
            with contextlib.suppress(StoreUnavailable):
                revoke(sealed, lease.session, _NOBODY, now)
    for lease in _removers(sealed, point_id):
        return (
            f"is being removed just now by {lease.title}; take another point, or try again "
            "when that has ended (see `backpoint leases`)"
        )
    try:
        point = standing_point(sealed, point_id)
    except ObjectMissing:
        point = None
    return "is gone, so nothing can stand on it" if point is None else ""


def _removers(sealed: SealedStore, point_id: bytes) -> list[HeldLease]:
    """Who is about to remove the point."""
    leases = read_leases(sealed)
    return [one for one in leases if one.purpose == REMOVING and point_id in one.pins]


def _held(sealed: SealedStore) -> Iterator[tuple[bytes, str]]:
    return _among(sealed.names(Kind.NOTE))


def _among(names: Iterable[str]) -> Iterator[tuple[bytes, str]]:
    for name in names:
        if match := _NOTE_NAME.fullmatch(name):
            yield bytes.fromhex(match[1]), match[2]


def _topic(holder: str) -> str:
    if not _HOLDER.fullmatch(holder):
        raise UsageError(f"{holder!r} is no holder of a point: 16 hex digits are")
    return f"{_TOPIC}{holder}"


def _decoded(note: PointNote, holder: str) -> Hold:
    why, since, until = (note.facts.get(name) for name in ("why", "since", "until"))
    if type(why) is not str or type(since) is not float or type(until) not in (float, type(None)):
        raise ObjectDamaged(f"the note {note.topic} of {note.point_id.hex()} is no hold")
    return Hold(note.point_id, holder, why, since, until)
