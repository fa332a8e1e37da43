"""The proofs a mount has at hand: which there are, looked up again when somebody asks and some
seconds are over; and what those of the points that are touched say.

Decides how old an answer may be and how much is kept. One listing serves all points, so nobody pays
for a point that nobody looks at. What may fetch belongs on a worker; the rest is for the loop.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from backpoint_fusefs.point_proofs import PointProofs
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.point_proof import (
    ProofNames,
    made_at,
    proof_names,
    read_history,
    read_screenshot,
)
from backpoint_repo.sealed_store import SealedStore

FRESH_S: Final = 2.0
"""How old the list of proofs may be when somebody looks at a point."""
_SHARE: Final = 20
"""A list is kept this many times as long as it took to make."""
_KEPT: Final = 256
HISTORY_MAX: Final = 20
"""Proofs of one point that proof.json tells."""


class ProofShelf:
    """Thread-safe. clock: seconds, monotonic."""

    def __init__(self, sealed: SealedStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._sealed = sealed
        self._clock = clock
        self._lock = threading.Lock()
        self._names = ProofNames()
        self._fresh_until = float("-inf")
        self._kept: OrderedDict[bytes, PointProofs] = OrderedDict()

    @property
    def old(self) -> bool:
        """Whether it is time to look. Never waits."""
        return self._clock() >= self._fresh_until

    def newest_at(self, point_id: bytes) -> float | None:
        """When the newest proof of a point was made, as far as is known. Never waits."""
        ids = self._names.proofs.get(point_id)
        return made_at(ids[0]) if ids else None

    def kept(self, point_id: bytes) -> PointProofs | None:
        """What a point's proofs say, if it is here and nothing has come since. Never waits."""
        found = self._kept.get(point_id)
        ids = self._ids(point_id)
        if found is None and not ids:
            return PointProofs.none(point_id)
        return found if found is not None and found.ids == ids else None

    def look(self) -> None:
        """List them, unless another thread just did. Raises what a store raises; then what was
        known stays, and counts as fresh."""
        with self._lock:
            if not self.old:
                return
            started = self._clock()
            try:
                self._names = proof_names(self._sealed)
            finally:
                took_s = self._clock() - started
                self._fresh_until = self._clock() + max(FRESH_S, _SHARE * took_s)

    def read(self, point_id: bytes) -> PointProofs:
        """What a point's proofs say. Raises nothing: what cannot be read is told in it."""
        ids = self._ids(point_id)
        found = PointProofs(point_id, ids, read_history(self._sealed, point_id, ids))
        with self._lock:
            self._kept[point_id] = found
            self._kept.move_to_end(point_id)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def screenshot(self, point_id: bytes, proof_id: str) -> bytes:
        """A PNG. Raises OwnerKeyNeeded, ObjectMissing, ObjectDamaged, StoreUnavailable."""
        found = read_screenshot(self._sealed, point_id, proof_id)
        if found is None:
            raise ObjectMissing("the screenshot of this proof is not there")
        return found

    def _ids(self, point_id: bytes) -> tuple[str, ...]:
        return tuple(self._names.proofs.get(point_id, ())[:HISTORY_MAX])
