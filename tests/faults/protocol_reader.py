"""A mount in the model of leases and trash: what is open under a standing lease must stay.

Each step is one call of the store. Its opening of files and its renewing of the lease go on beside
each other, as they do in the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from faults.protocol_store import VOID, Lease, Store


class Mount(NamedTuple):
    """eager: serves what is open at once, and not only when it is pinned and stood after that.

    opened: the point and its letters; sure: it is served. captured: what the lease that is being
    made will pin.
    """

    session: int
    eager: bool = False
    pc: str = "read"
    began: bool = False
    opened: tuple[int, str] = (0, "")
    pinned: bool = False
    sure: bool = False
    seen: int = 0
    captured: tuple[int, str] = (0, "")

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.pc == "end"

    def holds(self, store: Store) -> str:
        """Letters that must be there for it."""
        return self.opened[1] if self.sure and store.lease(self.session) else ""

    def steps(self, store: Store, without: str) -> Iterator[tuple[str, Store, Mount]]:
        """What it can do next: (what, the store after it, the mount after it)."""
        if self.over:
            return
        if self.began and store.lease(self.session) is None:
            yield "lease is gone", store, Mount(self.session, pc="end")
            return
        if self.began and not self.opened[0]:
            for session, letters in store.points:
                if letters != VOID:
                    sure = self.eager or without == "open only what is pinned"
                    yield "open", store, self._replace(opened=(session, letters), sure=sure)
        if self.pinned and not self.sure:
            stands = store.point(self.opened[0]) == self.opened[1]
            gone = self._replace(opened=(0, ""), pinned=False)
            after = self._replace(sure=True) if stands else gone
            yield "look at the point", store, after
        yield from self._renewals(store, without)

    def _renewals(self, store: Store, without: str) -> Iterator[tuple[str, Store, Mount]]:
        early = without == "trash before pins"
        if self.pc == "read":
            lease = store.lease(self.session)
            if lease is None or lease.epoch < store.newest_epoch() or not self.pinned:
                if early:
                    yield "capture", store, self._replace(pc="capture", captured=self.opened)
                else:
                    after = self._replace(pc="capture", seen=store.newest_epoch())
                    yield "read trash", store, after
        elif self.pc == "capture" and early:
            yield "read trash", store, self._replace(pc="put", seen=store.newest_epoch())
        elif self.pc == "capture":
            yield "capture", store, self._replace(pc="put", captured=self.opened)
        else:
            point, letters = self.captured
            lease = Lease(self.session, self.seen, letters, (point,) if point else ())
            if without == "pins in the lease":
                lease = Lease(self.session, self.seen)
            pinned = bool(point) and self.captured == self.opened
            after = self._replace(pc="read", began=True, pinned=pinned, captured=(0, ""), seen=0)
            yield "put lease", store.with_lease(lease), after
