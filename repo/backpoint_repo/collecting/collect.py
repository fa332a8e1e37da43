"""Giving space back while others work: end the dead, mark, plan, compact, put into trash, wait,
mark again, delete.

The order makes it safe beside backups, mounts and other collectors, whatever clocks say (FORMAT.md
13). Whoever publishes trash between our reading of it and our own makes us begin the round anew.
Decides this order; the steps have files of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.collecting.housekeeping import tidy, unneeded_packs
from backpoint_repo.collecting.marking import ContentUnknown
from backpoint_repo.collecting.pack_usage import Inspection, indexed_usages, suspects
from backpoint_repo.collecting.plan import CollectionPlan, plan_collection
from backpoint_repo.collecting.report import CollectReport, CollectTerms, Waiting
from backpoint_repo.collecting.sweep import Sweep, Watch
from backpoint_repo.collecting.workplace import Sight, Workplace
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreFull, UnknownFormat
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.index_segment import PackRef
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.repository import Repository
from backpoint_repo.trash import put_trash

ROUNDS_MAX: Final = 5
"""Rounds that other collectors may spoil by publishing trash first."""


def collect(
    repository: Repository,
    terms: CollectTerms,
    progress: PhaseProgress,
    pause: Callable[[float], None],
) -> CollectReport:
    """pause: waits so many seconds.

    Raises StoreUnavailable (StoreReadOnly where nothing may be deleted), UnknownFormat where only a
    newer program may write here, ObjectDamaged where trash cannot be read. What else stops it is in
    the report.
    """
    refuse_unknown_features(repository.sealed.store)
    place = Workplace(repository, progress)
    with place, _stopping(place.report):
        if terms.dry_run:
            _preview(place, terms.max_repack)
        else:
            _collect(place, terms, Sweep(place, pause))
    return place.report


def _collect(place: Workplace, terms: CollectTerms, sweep: Sweep) -> None:
    place.stand()
    place.read_leases()
    # A copy that is relied on must be found by everybody, also where who made it died in between.
    place.index.refresh()
    place.index.adopt_unlisted_packs()
    sweep.run(wait_s=0.0)
    _put_into_trash(place, terms.max_repack)
    sweep.run(terms.wait_s)
    unneeded = unneeded_packs(place)
    place.marking.forget()  # merging segments needs the memory
    tidy(place, unneeded)


def _preview(place: Workplace, max_repack: int | None) -> None:
    """What would go, and what waits; writes nothing."""
    seen = place.look()
    _plan(place, seen, max_repack)
    watch = Watch(seen.leases)
    place.report.waiting = tuple(
        Waiting(epoch, len(packs), sum(packs.values()), watch.blocking(epoch))
        for epoch, packs in seen.waiting.items()
    )


@contextlib.contextmanager
def _stopping(report: CollectReport) -> Iterator[None]:
    try:
        yield
    except ContentUnknown as error:
        report.stopped += (str(error),)


def _put_into_trash(place: Workplace, max_repack: int | None) -> None:
    """What is dead, and what was compacted."""
    report = place.report
    for _ in range(ROUNDS_MAX):
        seen = place.look()
        plan = _plan(place, seen, max_repack)
        going = [verdict.usage.pack for verdict in plan.dead] + _compact(place, plan)
        if not going:
            return
        if not place.stands():
            continue
        epoch, now = seen.trash.newest + 1, place.clock()
        taken = not put_trash(place.sealed, epoch, going, seen.swept, place.session, now)
        # Whoever slept meanwhile may have put what came and went already: nobody sweeps that.
        if not taken and epoch in place.read_trash().waiting:
            report.epoch, report.trashed_packs = epoch, len(going)
            report.trashed = sum(seen.sizes[pack] for pack in going)
            return
    report.stopped += (
        f"other collectors put something into trash {ROUNDS_MAX} times while this one looked: "
        "collect again when they are done",
    )


def _plan(place: Workplace, seen: Sight, max_repack: int | None) -> CollectionPlan:
    live = place.marking.live
    indexed = indexed_usages(seen.sizes, place.index.tables(), live)
    usages = {usage.pack: replace(usage, stranded=usage.pack in seen.stranded) for usage in indexed}
    suspected = suspects(usages.values(), max_repack)
    writers = {lease.session: lease.title for lease in seen.leases}
    if place.session:
        writers[place.session] = "this collector"
    place.progress.phase("packs", len(suspected))
    inspection = Inspection(place.sealed, live, writers, place.good, place.trashed)
    exact = inspection.exact(suspected, place.progress.advance)
    for usage in suspected:
        del usages[usage.pack]
    place.report.plan = plan_collection([*usages.values(), *exact], max_repack)
    return place.report.plan


def _compact(place: Workplace, plan: CollectionPlan) -> list[PackRef]:
    """Copy what is live in the packs of the plan; those that can go now."""
    repack = [verdict.usage.pack for verdict in plan.repack]
    leaving = place.trashed.union(repack, (verdict.usage.pack for verdict in plan.dead))
    place.progress.phase("compacting", len(repack))
    going = []
    try:
        for pack in repack:
            if _copied_out(place, pack, leaving):
                going.append(pack)
            place.progress.advance(1)
        place.rescue.flush()
    except StoreFull as error:
        # What is dead can go all the same, and makes room for the next time.
        place.note(f"nothing was compacted, because there is no room for copies: {error}")
        place.forget_copies()
        return []
    finally:
        place.report.copied = place.rescue.copied
    return going


def _copied_out(place: Workplace, pack: PackRef, leaving: frozenset[PackRef]) -> bool:
    """Whether all that is live in a pack has a good copy elsewhere, once copies are flushed."""
    try:
        lost = place.rescue.secure(BlobSource(place.sealed, pack), leaving)
    except (ObjectMissing, ObjectDamaged, UnknownFormat):
        return False  # deleted by another collector, or spoiled since it was judged: left alone
    if lost:
        place.mark_damaged([(content_id, pack) for content_id in lost])
        place.report.damaged += (
            f"{pack.name.hex()}: {len(lost)} blobs that are needed are damaged: run heal",
        )
    return not lost
