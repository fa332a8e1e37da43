"""How one point comes to be without a half one ever being seen: lease, look at trash, put.

The lease is put first and fixes the point's key. Trash is read before anything is referred to, and
again before the point is put; what was used of newly trashed packs is stored again. The point is
put only if its key is free. Decides this order (FORMAT.md 13) and what a lost lease means. What the
point says, and how its content is stored, is for the sessions that use it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from backpoint_repo.catalog import Catalog, read_point
from backpoint_repo.errors import ObjectExists, RepositoryError, SessionRevoked, UsageError
from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.format import Kind
from backpoint_repo.index import Index
from backpoint_repo.lease import BACKUP, Lease, LeaseTerms
from backpoint_repo.lease_book import put_void
from backpoint_repo.pin import pin_of
from backpoint_repo.point import POINT_ID_SIZE, Point
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.segment_merge import merge_after_backup

_REVOKED: Final = (
    "this backup took longer without a sign of life than its lease allows, and a collector revoked "
    "it; run it again (what was stored is found again)"
)


@dataclass(frozen=True)
class PublicationParts:
    """What it needs of a repository. index: whose exclusions are this session's alone. clock:
    seconds since 1970."""

    sealed: SealedStore
    index: Index
    catalog: Catalog
    clock: Callable[[], float]


class Publication:
    """For one thread, which calls `close` in the end; without `put` there is no point."""

    def __init__(self, parts: PublicationParts, parent: Point | None) -> None:
        """Put the lease, then read trash, then learn what is stored (the order matters).

        parent: the point to stand on, which the lease pins. Raises what a store raises.
        """
        self._parts = parts
        self.point_id = secrets.token_bytes(POINT_ID_SIZE)
        self.started = parts.clock()
        self.warnings: list[str] = []
        self.redo: list[Callable[[], None]] = []
        """What stores everything again that the point will refer to, as far as it is not known."""
        self._failed = False
        self._in_doubt = False
        pins = (pin_of(parent),) if parent else ()
        self.lease = Lease(parts.sealed, self.point_id, LeaseTerms(BACKUP, 0, pins), parts.clock)
        try:
            self.lease.keep_fresh(self._note)
            self._exclusions = read_exclusions(parts.sealed)
            if self._exclusions.epoch:
                # Nothing is referred to yet, so all trash there is may be declared seen.
                self.lease.refresh(LeaseTerms(BACKUP, self._exclusions.epoch, pins))
            parts.index.exclude(self._exclusions)
            parts.index.refresh()
            parts.index.adopt_unlisted_packs()
            self.warnings += [*self._exclusions.unreadable, *parts.index.broken_segments]
        except BaseException:
            self.close()
            raise

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """After a failure what was begun counts as written and is not: nothing may refer to it."""
        if self._failed:
            raise UsageError("this backup has failed; begin a new one")
        self._failed = True
        yield
        self._failed = False

    def settle(self, flush: Callable[[], None]) -> None:
        """Make all durable; store again what a collector trashed meanwhile, until nothing is.

        flush: makes what was stored durable and indexed. The lease says which trash was seen only
        after what it held has been stored again. Raises SessionRevoked and what a store raises.
        """
        while True:
            flush()
            now = read_exclusions(self._parts.sealed).after(self._exclusions)
            fresh = now.trashed - self._exclusions.trashed
            self._exclusions = now
            if fresh:
                self._parts.index.exclude(now)
                for step in self.redo:
                    step()
                continue
            if now.epoch > self.lease.terms.epoch:
                self.lease.refresh(LeaseTerms(BACKUP, now.epoch, self.lease.terms.pins))
            self.lease.look()
            self.refuse_lost_lease()
            return

    def put(self, point: Point) -> Point:
        """Make the point exist, after `settle`; its id is `point_id`.

        Raises SessionRevoked where a collector took this session for dead. May be tried again after
        StoreUnavailable.
        """
        try:
            self._in_doubt = True
            self._parts.sealed.put(Kind.POINT, self.point_id.hex(), point.encode())
            self._in_doubt = False
        except ObjectExists:
            self._in_doubt = False
            # Ours, where an earlier put arrived and only its answer was lost.
            ours = read_point(self._parts.sealed, self.point_id)
            if ours is not None:
                return ours
            raise SessionRevoked(_REVOKED) from None
        self._tidy_up(point)
        return point

    def refuse_lost_lease(self) -> None:
        """Raises SessionRevoked where somebody has ended this session."""
        if self.lease.lost:
            raise SessionRevoked(_REVOKED)

    def close(self) -> None:
        """Give the lease back. Harmless when repeated."""
        if self._in_doubt:
            self._end_doubt()
        self.lease.release()

    def _tidy_up(self, point: Point) -> None:
        """The point exists; trouble from here on is only noted."""
        self._parts.catalog.add(point)
        try:
            self._parts.catalog.compact()
            merge_after_backup(self._parts.sealed, self._parts.index)
        except RepositoryError as error:
            self._note(error)

    def _note(self, error: RepositoryError) -> None:
        self.warnings.append(str(error))

    def _end_doubt(self) -> None:
        """The point may still be on its way: nobody protects what it needs once the lease is gone.

        Where its key cannot be taken either, the lease is left to expire; a collector takes the key
        before it takes anything else.
        """
        try:
            put_void(self._parts.sealed, self.point_id, self.point_id, self._parts.clock())
        except RepositoryError:
            self.lease.abandon()
