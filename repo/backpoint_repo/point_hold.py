"""Holds: who needs a point kept, beside the point. No retention removes a held one.

A note on the point (see `point_note.py`), one for each holder; it has no lease's lifetime, because
a session on a machine that is switched off for a month needs its point all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from backpoint_repo.sealed_store import SealedStore


@dataclass(frozen=True)
class Hold:
    """holder: 16 hex digits that make it this one. why: for the user. since: seconds since 1970.
    until: None for as long as it is there."""

    point_id: bytes
    holder: str
    why: str
    since: float
    until: float | None = None


def put_hold(sealed: SealedStore, hold: Hold) -> None:
    """Raises ObjectMissing where the point is not there (any more), and what a store raises."""
    raise NotImplementedError


def drop_hold(sealed: SealedStore, point_id: bytes, holder: str) -> None:
    """Harmless where there is none. Raises what a store raises."""
    raise NotImplementedError


def read_holds(sealed: SealedStore) -> list[Hold]:
    """All of them; those that cannot be read raise ObjectDamaged: nobody may remove the point."""
    raise NotImplementedError
