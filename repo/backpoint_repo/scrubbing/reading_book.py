"""The READING objects of a repository: loaded, added to, and merged when there are many.

Losing any of them costs reading packs again, nothing else; so what cannot be read is passed over.
Safe with several scrubs at once: a part is deleted only by who has put all that it said into
another object before.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    StoreUnavailable,
    UnknownFormat,
)
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.record import encode_record
from backpoint_repo.scrubbing.readings import (
    COMPARED,
    OPENED,
    Readings,
    Rows,
    decode_rows,
    encode_rows,
)
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store_rights import may_delete

MERGE_AFTER: Final = 16
"""Objects after which they become one: a scrub of months would leave thousands to be read."""
_TRIES: Final = 5
"""Listings while others merge under us; what is missed then is read once more."""


class ReadingBook:
    """For one thread. readings: the newest of all that was loaded and added."""

    def __init__(self, sealed: SealedStore, packs: Iterable[PackRef], now: float) -> None:
        """Load what there is. packs: those in the store; what is said of others is dropped."""
        self._sealed = sealed
        self._parts: set[str] = set()
        self._spoiled: set[str] = set()
        self._may_merge = True
        self.readings = Readings(packs)
        for _ in range(_TRIES):
            if not self._load_new(now):
                break

    def add(self, rows: Rows, now: float) -> None:
        """Store new readings. Raises what a store raises; then nothing was added."""
        name = self._put(rows)
        self._parts.add(name)
        self.readings.learn(rows, now)
        self.tidy()

    def tidy(self) -> None:
        """Merge what is many, and drop what is damaged. Raises what a store raises for puts."""
        if self._may_merge and (len(self._parts) >= MERGE_AFTER or self._spoiled):
            self._merge()

    def _load_new(self, now: float) -> bool:
        """Whether something went away meanwhile: somebody has put it into another object."""
        moved = False
        for name in set(self._sealed.names(Kind.READING)) - self._parts - self._spoiled:
            try:
                self.readings.learn(read_rows(self._sealed, name), now)
            except ObjectMissing:
                moved = True
            except ObjectDamaged:
                self._spoiled.add(name)
            except (UnknownFormat, StoreUnavailable):
                continue  # somebody else's, or good tomorrow: never ours to delete
            else:
                self._parts.add(name)
        return moved

    def _merge(self) -> None:
        if not may_delete(self._sealed):
            self._may_merge = False  # a maintainer's to do: a union more would help nobody
            return
        old = self._parts | self._spoiled
        self._parts = {self._put(self.readings.rows())}
        self._spoiled = set()
        for name in old:
            self._sealed.delete(Kind.READING, name)

    def _put(self, rows: Rows) -> str:
        name = secrets.token_hex(16)
        self._sealed.put(Kind.READING, name, encode_record({"rows": encode_rows(rows)}))
        return name


def read_rows(sealed: SealedStore, name: str) -> Rows:
    """What one READING object says. Raises ObjectMissing, ObjectDamaged, UnknownFormat."""
    rows = sealed.get_record(Kind.READING, name).get("rows", bytes)
    return decode_rows(rows, object_key(Kind.READING, name))


def closest_depth(sealed: SealedStore) -> int:
    """How closely all packs can be read with this credential."""
    return COMPARED if sealed.keyring.owner_private is None else OPENED
