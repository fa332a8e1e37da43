"""What a removal that was cut short leaves: notes of points that are gone, and a void not put yet.

A note without a point has no meaning but one: `unreleased` says that a void belongs in the point's
place. Holds are left to their holders, who might be about to look whether the point is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from backpoint_repo.catalog import Catalog
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.lease_book import UNRELEASED, put_void, read_leases
from backpoint_repo.point_hold import REMOVING, is_hold
from backpoint_repo.point_note import note_name
from backpoint_repo.sealed_store import SealedStore

_NOTE_NAME: Final = re.compile(r"([0-9a-f]{32})-([a-z][a-z0-9]{0,31})")
_NOBODY: Final = bytes(16)


def drop_leftovers(sealed: SealedStore, catalog: Catalog, clock: Callable[[], float]) -> int:
    """Delete notes whose point is gone; how many there were. Raises what a store raises."""
    # Notes first: a note is put on a point that is there, so one listed now belongs to a point that
    # is listed after it, or to none.
    topics: dict[str, list[str]] = {}
    for name in sealed.names(Kind.NOTE):
        match = _NOTE_NAME.fullmatch(name)
        if match is not None and not is_hold(name):
            topics.setdefault(match[1], []).append(match[2])
    there = {point.point_id.hex() for point in catalog.refresh()} | catalog.broken.keys()
    # The catalogue may be wrong: the objects decide.
    gone = [name for name in sorted(topics.keys() - there) if _is_gone(sealed, name)]
    if not gone:
        return 0
    # Another remover may be between deleting a point and putting it back.
    leases = read_leases(sealed)
    in_hand = {pin.hex() for one in leases if one.purpose == REMOVING for pin in one.pins}
    return sum(
        _drop(sealed, bytes.fromhex(name), topics[name], clock())
        for name in gone
        if name not in in_hand
    )


def _is_gone(sealed: SealedStore, name: str) -> bool:
    try:
        return sealed.get_either(name, Kind.POINT, Kind.VOID)[0] is Kind.VOID
    except ObjectMissing:
        return True
    except (ObjectDamaged, UnknownFormat):
        return False


def _drop(sealed: SealedStore, point_id: bytes, topics: list[str], now: float) -> int:
    if UNRELEASED in topics and not put_void(sealed, point_id, _NOBODY, now):
        return 0
    # Last of all the one that asks for the void.
    for topic in sorted(topics, key=UNRELEASED.__eq__):
        sealed.delete(Kind.NOTE, note_name(point_id, topic))
    return len(topics)
