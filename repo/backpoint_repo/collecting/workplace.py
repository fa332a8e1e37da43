"""What one collection works with: its lease, what it knows to be live, which copies it relies on.

Decides when all of that must be begun anew: when somebody took this collector for dead, nothing
protects its copies any more; when what could not be read turns out to be removed, marking starts
over. Which steps come when is for `collect.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from backpoint_repo.collecting.good_copies import GoodCopies
from backpoint_repo.collecting.marking import ContentUnknown, Marking
from backpoint_repo.collecting.report import CollectReport, Pinned
from backpoint_repo.collecting.rescue import Rescue
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.exclusions import mark_damaged, read_exclusions
from backpoint_repo.format import Kind
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import COLLECT, SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.lease_book import HeldLease, end_over, read_leases, revoke
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.point import POINT_ID_SIZE
from backpoint_repo.repository import Repository
from backpoint_repo.trash import Trash, read_trash
from backpoint_repo.verbatim_copy import VerbatimCopies

T = TypeVar("T")

_TERMS: Final = LeaseTerms(COLLECT, SEEN_ALL)
_TRIES: Final = 5
"""Markings that removals under way may spoil."""


@dataclass(frozen=True)
class Sight:
    """The repository at one moment. waiting: bytes of the packs of each epoch that are there still.
    sizes: bytes of all other packs. stranded: those of them that trash names which is over."""

    trash: Trash
    waiting: Mapping[int, Mapping[PackRef, int]]
    sizes: Mapping[PackRef, int]
    stranded: frozenset[PackRef]
    leases: list[HeldLease]

    @property
    def swept(self) -> int:
        """The epoch up to which all packs are gone, as `put_trash` wants it."""
        return min([*self.waiting, self.trash.newest + 1]) - 1


class Workplace:
    """For one thread. A context manager; `stand` puts the lease, leaving releases it."""

    def __init__(self, repository: Repository, progress: PhaseProgress) -> None:
        self.sealed = repository.sealed
        self.index = repository.index
        self.clock: Callable[[], float] = repository.clock
        self.catalog = repository.catalog
        self.progress = progress
        self.marking = Marking(repository.sealed, repository.index, repository.nodes)
        self.good = GoodCopies(
            repository.sealed, repository.index, repository.nodes, repository.chunks
        )
        self.trashed: frozenset[PackRef] = frozenset()
        self.session = b""
        self.report = CollectReport()
        self._lease: Lease | None = None
        self.forget_copies()

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *_: object) -> None:
        self.marking.__exit__()
        if self._lease is not None:
            self._lease.release()

    def stand(self) -> None:
        """Begin a session, whose packs are protected by its lease from now on."""
        self.session = secrets.token_bytes(POINT_ID_SIZE)
        self._lease = Lease(self.sealed, self.session, _TERMS, self.clock)
        self._lease.keep_fresh(lambda error: self.note(str(error)))
        self.forget_copies()

    def forget_copies(self) -> None:
        """Rely on nothing that was copied or compared before."""
        copies = VerbatimCopies(self.sealed, self.index, self.session)
        self.rescue = Rescue(self.marking.live, self.good, copies)

    def stands(self) -> bool:
        """Whether our lease still does. If not, another session is begun, which relies on no copy
        that was made before."""
        assert self._lease is not None
        self._lease.look()
        if not self._lease.lost:
            return True
        self.note("this collector was taken for dead meanwhile, and began anew")
        self._lease.release()
        self.stand()
        return False

    def look(self) -> Sight:
        """What is there, in the order that makes it safe, with all marked that something needs.

        Raises ContentUnknown, StoreUnavailable.
        """

        def once() -> Sight:
            trash = self.read_trash()
            sizes = dict(pack_sizes(self.sealed))
            waiting = {
                epoch: there
                for epoch in trash.waiting
                if (there := {p: sizes[p] for p in trash.epochs[epoch] if p in sizes})
            }
            for packs in waiting.values():
                for pack in packs:
                    sizes.pop(pack, None)
            over = frozenset(pack for epoch in trash.over for pack in trash.epochs[epoch])
            leases = read_leases(self.sealed)
            self._mark(list(self.sealed.names(Kind.POINT)), leases)
            return Sight(trash, waiting, sizes, over & sizes.keys(), leases)

        return self._until_known(once)

    def look_again(self) -> None:
        """Mark what is needed by now, before something is deleted. Raises as `look`."""

        def once() -> None:
            self.read_trash()
            points = list(self.sealed.names(Kind.POINT))
            self._mark(points, read_leases(self.sealed))

        self._until_known(once)

    def read_trash(self) -> Trash:
        """All there is; what was read once stays excluded."""
        self.rescue.compare_again()
        trash = read_trash(self.sealed)
        self.trashed |= trash.packs
        return trash

    def read_leases(self) -> list[HeldLease]:
        """All others' that are alive; sessions without a sign of life are ended now."""
        before = self.clock()
        leases = [lease for lease in read_leases(self.sealed) if lease.session != self.session]
        after = self.clock()
        over = [lease for lease in leases if lease.ended]
        if over:
            end_over(self.sealed, over, self.session, after)
        alive = []
        for lease in (lease for lease in leases if not lease.ended):
            # By both: this machine may have slept while it read them.
            if lease.looks_expired(before) and lease.looks_expired(after):
                revoke(self.sealed, lease.session, self.session, after)
                self.report.revoked += (lease.title,)
            else:
                alive.append(lease)
        return alive

    def mark_damaged(self, copies: list[tuple[bytes, PackRef]]) -> None:
        """So that nothing is deduplicated onto them."""
        fresh = [(found, pack) for found, pack in copies if not self.good.is_marked(pack, found)]
        if fresh:
            mark_damaged(self.sealed, fresh, self.clock())

    def note(self, text: str) -> None:
        """For the user."""
        self.report.notes += (text,)

    def _mark(self, points: list[str], leases: list[HeldLease]) -> None:
        self.marking.learn()  # after points were listed: what they need was indexed before
        marks: dict[PackRef, set[bytes]] = {}
        for content_id, pack in read_exclusions(self.sealed).damaged:
            marks.setdefault(pack, set()).add(content_id)
        self.good.marks = {pack: frozenset(ids) for pack, ids in marks.items()}
        self.progress.phase("points", len(points))
        self.marking.mark_points(points, self.progress.advance)
        for lease in leases:
            if not self.marking.covers(lease):
                self._mark_pins(lease)

    def _mark_pins(self, lease: HeldLease) -> None:
        before = self.marking.live.size(self.index.tables())
        self.marking.mark_pins(lease)
        if size := self.marking.live.size(self.index.tables()) - before:
            self.report.pinned += (Pinned(lease.title, size),)

    def _until_known(self, look: Callable[[], T]) -> T:
        """What is removed while we look is no gap."""
        for _ in range(_TRIES):
            try:
                return look()
            except ContentUnknown as error:
                self.marking.forget()
                if self._still_there(error.owner):
                    raise
        return look()

    def _still_there(self, owner: str | bytes) -> bool:
        if isinstance(owner, bytes):
            return any(lease.session == owner for lease in read_leases(self.sealed))
        try:
            self.sealed.store.size(owner)
        except ObjectMissing:
            return False
        return True
