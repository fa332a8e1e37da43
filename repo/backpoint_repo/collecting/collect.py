"""Giving space back while others work: revoke the dead, mark, plan, compact, put into trash, wait,
mark again, delete.

The order makes it safe beside backups, mounts and other collectors, whatever clocks say (FORMAT.md
13): trash is read before packs are listed, those before leases, those before points. Who publishes
trash in between makes us begin anew. Decides this order only; the steps have files of their own.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.collecting.marking import ContentUnknown, Marking
from backpoint_repo.collecting.pack_usage import (
    Inspection,
    Surroundings,
    indexed_usages,
    suspects,
)
from backpoint_repo.collecting.plan import CollectionPlan, plan_collection
from backpoint_repo.collecting.report import (
    CollectProgress,
    CollectReport,
    CollectTerms,
    Waiting,
)
from backpoint_repo.collecting.rescue import Rescue
from backpoint_repo.collecting.sweep import Watch, sweep_packs
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.exclusions import mark_damaged, read_exclusions
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.format import Kind
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import COLLECT, SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.lease_book import HeldLease, read_leases, revoke
from backpoint_repo.point import POINT_ID_SIZE
from backpoint_repo.repository import Repository
from backpoint_repo.trash import Trash, drop_trash, put_trash, read_trash

ROUNDS_MAX: Final = 5
"""Rounds that other collectors may spoil by publishing trash first."""
_POLL_S: Final = 3.0
_TERMS: Final = LeaseTerms(COLLECT, SEEN_ALL)


def collect(
    repository: Repository,
    terms: CollectTerms,
    progress: CollectProgress,
    pause: Callable[[float], None],
) -> CollectReport:
    """pause: waits so many seconds.

    Raises StoreUnavailable (StoreReadOnly where the credential may not delete), and UnknownFormat
    where a newer program's repository must not be written to. What stops it otherwise is in the
    report.
    """
    refuse_unknown_features(repository.sealed.store)
    collection = _Collection(repository, terms, progress, pause)
    return collection.run()


class _Collection:
    """One run of it."""

    def __init__(
        self,
        repository: Repository,
        terms: CollectTerms,
        progress: CollectProgress,
        pause: Callable[[float], None],
    ) -> None:
        self._sealed = repository.sealed
        self._index = repository.index
        self._clock = repository.clock
        self._terms = terms
        self._progress = progress
        self._pause = pause
        self._marking = Marking(repository.sealed, repository.index, repository.nodes)
        self._trashed: frozenset[PackRef] = frozenset()
        self._report = CollectReport()

    def run(self) -> CollectReport:
        """See `collect`."""
        with self._marking:
            if self._terms.dry_run:
                with self._stopping():
                    self._plan(self._look())
                return self._report
            self._stand()
            try:
                self._revoke_expired(read_leases(self._sealed))
                with self._stopping():
                    self._sweep(wait_s=0.0)
                    self._publish()
                    self._sweep(self._terms.wait_s)
            finally:
                self._lease.release()
        return self._report

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        except ContentUnknown as error:
            self._report.stopped += (str(error),)

    def _stand(self) -> None:
        """Begin a session, whose packs are protected by its lease from now on."""
        self._session = secrets.token_bytes(POINT_ID_SIZE)
        self._lease = Lease(self._sealed, self._session, _TERMS, self._clock)
        self._lease.keep_fresh(lambda error: self._note(str(error)))
        live = self._marking.live
        self._rescue = Rescue(self._sealed, self._index, live, self._session)

    def _stands(self) -> bool:
        """Whether our lease does. If not, nothing that we have copied can be relied on: begin
        another session."""
        self._lease.look()
        if not self._lease.lost:
            return True
        self._note("this collector was taken for dead meanwhile, and began again")
        self._lease.release()
        self._stand()
        return False

    def _publish(self) -> None:
        """Put into trash what is dead, and what was compacted."""
        for _ in range(ROUNDS_MAX):
            seen = self._look()
            plan = self._plan(seen)
            going = [verdict.usage.pack for verdict in plan.dead] + self._compact(plan)
            if not going:
                return
            if not self._stands():
                continue
            epoch = seen.trash.newest + 1
            if put_trash(self._sealed, epoch, going, self._session, self._clock()):
                self._report.epoch = epoch
                self._report.trashed_packs = len(going)
                self._report.trashed = sum(seen.sizes[pack] for pack in going)
                return
        self._report.stopped += (
            f"other collectors were faster {ROUNDS_MAX} times; collect again when they are done",
        )

    def _look(self) -> _Seen:
        """What is there, in the order that makes it safe, and marked what points and pins need."""
        trash = self._read_trash()
        sizes = {pack: size for pack, size in pack_sizes(self._sealed) if pack not in self._trashed}
        leases = read_leases(self._sealed)
        self._mark(list(self._sealed.names(Kind.POINT)), leases)
        return _Seen(trash, sizes, leases)

    def _mark(self, points: list[str], leases: list[HeldLease]) -> None:
        self._progress.phase("points", len(points))
        self._marking.learn()
        self._marking.mark_points(points, self._progress.advance)
        there = frozenset(points)
        for lease in leases:
            self._marking.mark_pins(lease, there)

    def _plan(self, seen: _Seen) -> CollectionPlan:
        usages = {usage.pack: usage for usage in indexed_usages(seen.sizes, self._marking.live)}
        suspected = suspects(usages.values(), self._terms.max_repack)
        self._progress.phase("packs", len(suspected))
        inspection = Inspection(self._sealed, self._marking.live, self._around(seen))
        exact = inspection.exact(suspected, self._progress.advance)
        for usage in suspected:
            del usages[usage.pack]
        plan = plan_collection([*usages.values(), *exact], self._terms.max_repack)
        self._report.plan = plan
        return plan

    def _around(self, seen: _Seen) -> Surroundings:
        own = None if self._terms.dry_run else self._session
        writers = {lease.session: lease.title for lease in seen.leases}
        if own is not None:
            writers[own] = "this collector"
        marked: dict[PackRef, set[bytes]] = {}
        for content_id, pack in read_exclusions(self._sealed).damaged:
            marked.setdefault(pack, set()).add(content_id)
        return Surroundings(writers, {pack: frozenset(ids) for pack, ids in marked.items()})

    def _compact(self, plan: CollectionPlan) -> list[PackRef]:
        """Copy what is live in the packs of the plan; those of which all is copied."""
        leaving = self._trashed | {verdict.usage.pack for verdict in (*plan.dead, *plan.repack)}
        self._progress.phase("compacting", len(plan.repack))
        going = []
        for verdict in plan.repack:
            if self._compact_pack(verdict.usage.pack, leaving):
                going.append(verdict.usage.pack)
            self._progress.advance(1)
        self._rescue.flush()
        self._report.copied = self._rescue.copied
        return going

    def _compact_pack(self, pack: PackRef, leaving: frozenset[PackRef]) -> bool:
        try:
            secured = self._rescue.secure(BlobSource(self._sealed, pack), leaving)
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            return False
        self._mark_damaged([(content_id, pack) for content_id in secured.lost])
        return not secured.lost

    def _sweep(self, wait_s: float) -> None:
        """Delete what is in trash and seen by everybody, at latest after waiting so long."""
        trash = self._read_trash()
        there = self._there(trash)
        self._drop_empty(trash, [epoch for epoch, packs in there.items() if not packs])
        if not any(there.values()):
            return
        watch = self._wait(max(there), wait_s)
        ready = [epoch for epoch in there if there[epoch] and not watch.blocking(epoch)]
        if ready:
            self._stands()
            trash = self._read_trash()
            points = list(self._sealed.names(Kind.POINT))
            self._mark(points, read_leases(self._sealed))
            packs = {pack: size for epoch in ready for pack, size in there[epoch].items()}
            self._sweep_epochs(ready, packs, trash)
        self._report.waiting = tuple(
            Waiting(epoch, len(packs), sum(packs.values()), tuple(watch.blocking(epoch)))
            for epoch, packs in there.items()
            if packs and epoch not in ready
        )

    def _sweep_epochs(self, epochs: list[int], packs: Mapping[PackRef, int], trash: Trash) -> None:
        self._progress.phase("deleting", len(packs))
        swept = sweep_packs(
            self._sealed, self._rescue, packs, self._trashed, self._progress.advance
        )
        self._report.freed_packs += len(swept.deleted)
        self._report.freed += sum(swept.deleted.values())
        self._report.damaged += tuple(swept.kept.values())
        self._mark_damaged(swept.lost)
        kept = swept.kept.keys()
        empty = [epoch for epoch in epochs if not trash.epochs.get(epoch, frozenset()) & kept]
        self._drop_empty(trash, empty)

    def _drop_empty(self, trash: Trash, epochs: list[int]) -> None:
        """Trash objects whose packs are all gone, but for the newest one."""
        for epoch in epochs:
            if epoch < trash.newest:
                drop_trash(self._sealed, epoch)

    def _there(self, trash: Trash) -> dict[int, dict[PackRef, int]]:
        """What of each epoch is not deleted yet, in bytes."""
        sizes = {pack: size for pack, size in pack_sizes(self._sealed) if pack in trash.packs}
        return {
            epoch: {pack: sizes[pack] for pack in packs if pack in sizes}
            for epoch, packs in sorted(trash.epochs.items())
        }

    def _wait(self, epoch: int, wait_s: float) -> Watch:
        """Until everybody has seen the epoch, at most so long."""
        leases = read_leases(self._sealed)
        watch = Watch(self._session, leases)
        waited = 0.0
        self._progress.phase("waiting for others to see it", round(wait_s))
        while watch.blocking(epoch) and waited < wait_s:
            step = min(_POLL_S, wait_s - waited)
            self._pause(step)
            waited += step
            self._progress.advance(round(step))
            self._revoke_expired(leases)
            leases = read_leases(self._sealed)
            watch.update(leases)
        return watch

    def _revoke_expired(self, leases: list[HeldLease]) -> None:
        now = self._clock()
        for lease in leases:
            if lease.session != self._session and lease.looks_expired(now):
                revoke(self._sealed, lease.session, self._session, now)
                self._report.revoked += (lease.title,)

    def _read_trash(self) -> Trash:
        trash = read_trash(self._sealed)
        self._trashed |= trash.packs
        return trash

    def _mark_damaged(self, copies: list[tuple[bytes, PackRef]]) -> None:
        if copies:
            mark_damaged(self._sealed, copies, self._clock())

    def _note(self, text: str) -> None:
        self._report.notes += (text,)


@dataclass(frozen=True)
class _Seen:
    """sizes: bytes of packs that are in no trash."""

    trash: Trash
    sizes: Mapping[PackRef, int]
    leases: list[HeldLease]
