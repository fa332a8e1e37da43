"""Is the repository whole? Every object, every pack, every point's tree; and, if asked, every blob.

The order: which objects are there and open, then packs, then trees, so that a damaged pack is told
as the points and ranges it hurts. Damaged copies are marked, so that nothing is deduplicated onto
them; those marks are all it writes. A mark of an earlier check holds until its copy is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from backpoint_repo.check_report import CheckReport
from backpoint_repo.errors import BackpointError
from backpoint_repo.exclusions import mark_damaged, read_exclusions
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.object_check import check_objects
from backpoint_repo.pack_check import PackCheck, PackFindings
from backpoint_repo.phase_progress import PhaseProgress, Silent
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.harm import (
    Harm,
    find_harm,
    load_points,
    packs_in_trash,
    sorted_by_harm,
)
from backpoint_repo.scrubbing.reading_book import ReadingBook, closest_depth
from backpoint_repo.scrubbing.readings import ages_of
from backpoint_repo.sizes import counted

_NAMED_MAX: Final = 10


def check_repository(
    repository: Repository,
    read_share: float | None = None,
    progress: PhaseProgress | None = None,
) -> CheckReport:
    """Look at everything; read the blobs of `read_share` (0 to 1) of all packs, None: of none.

    With the agent credential data is not opened but held against the digests of what was stored:
    that finds rot, not what a hostile agent stored. What cannot be read now is in the report.
    """
    progress = progress or Silent()
    reads = read_share is not None
    damaged, unreadable = check_objects(repository.sealed, progress, read_spares=reads)
    stored = load_points(repository.sealed)
    repository.index.refresh()
    unlisted = repository.index.learn_unlisted_packs()
    packs = _check_packs(repository, read_share, progress)
    marks = _earlier_marks(repository, packs)
    harm = find_harm(repository, stored.points, packs.bad_copies, progress)
    marked, trouble = _mark(repository, packs, harm, marks)
    harmful, harmless = sorted_by_harm(packs.damaged, harm)
    trashed, _ = packs_in_trash(repository.sealed)
    book = ReadingBook(repository.sealed, packs.present - trashed, repository.clock())
    notes = [
        *packs.notes,
        *marks.trouble,
        *trouble,
        *_oddities(repository, unlisted, stored.points),
    ]
    if reads and repository.sealed.keyring.owner_private is None:
        notes.append("data was compared as it was sealed; only the owner's key can open it")
    missing = {_key(pack) for pack in packs.missing}
    notes += [
        f"{item.key}: {item.problem}; no point depends on it"
        for item in harmless
        if item.key not in missing  # collected: the index still names them, which harms nobody
    ]
    return CheckReport(
        points=len(stored.points),
        packs=packs.packs,
        chunks=packs.chunks,
        read_bytes=packs.read_bytes,
        damaged=(*damaged, *stored.broken, *harmful),
        hurt=harm.hurt,
        unreadable=(*unreadable, *stored.blocked, *packs.unreadable, *harm.unreadable),
        marked=marked,
        in_trash=len(packs.present & trashed),
        ages=ages_of(book.readings.last_good(closest_depth(repository.sealed))),
        notes=tuple(notes),
    )


class _Marks(NamedTuple):
    """known: copies that were marked before. trouble: why that is not known."""

    known: frozenset[tuple[bytes, PackRef]] = frozenset()
    trouble: tuple[str, ...] = ()


def _check_packs(
    repository: Repository, read_share: float | None, progress: PhaseProgress
) -> PackFindings:
    kinds = (Kind.DATA_PACK, Kind.NODE_PACK)
    progress.phase("packs", sum(1 for kind in kinds for _ in repository.sealed.names(kind)))
    check = PackCheck(repository.sealed, repository.index, repository.nodes, repository.chunks)
    return check.run(read_share, progress.advance)


def _earlier_marks(repository: Repository, packs: PackFindings) -> _Marks:
    """Take over the marks of what is there and was not read now."""
    try:
        known = read_exclusions(repository.sealed).damaged
    except BackpointError as error:
        return _Marks(trouble=(f"what was marked as damaged is not known: {error}",))
    for copy in known:
        if copy[1] not in packs.read and copy[1] not in packs.missing:
            packs.bad_copies.setdefault(copy, "an earlier check marked it as damaged")
    return _Marks(known)


def _mark(
    repository: Repository, packs: PackFindings, harm: Harm, marks: _Marks
) -> tuple[int, list[str]]:
    """Mark what is bad and not marked yet. Of packs that are gone only what a point needs: a
    collector takes packs, and the index may name them for a while.

    A store that cannot be written is worth a note only.
    """
    fresh = (packs.bad_copies.keys() | harm.hurting.keys()) - marks.known
    if marks.trouble or not fresh:
        return 0, []
    try:
        mark_damaged(repository.sealed, fresh, repository.clock())
    except BackpointError as error:
        return 0, [f"damaged chunks could not be marked: {error}"]
    return len(fresh), []


def _oddities(repository: Repository, unlisted: int, points: Sequence[Point]) -> list[str]:
    """What is no damage, and might be a trace of some."""
    notes = []
    if unlisted:
        notes.append(
            f"{unlisted} packs are in no index segment (a backup is running, or a segment was "
            "lost); the next backup lists them"
        )
    try:
        gone = repository.catalog.gone()
        lies = repository.catalog.lies(points)
    except BackpointError as error:
        return [*notes, f"the catalogue cannot be read: {error}"]
    if lies:
        few = ", ".join(object_key(Kind.POINT, name) for name in lies[:_NAMED_MAX])
        notes.append(
            f"the catalogue lists {counted(len(lies), 'point')} otherwise than they are: delete "
            f"the objects in catalog/, which only save time, and ask who forged them: {few}"
        )
    if gone:
        few = ", ".join(object_key(Kind.POINT, name) for name in gone[:_NAMED_MAX])
        notes.append(f"{len(gone)} points of the catalogue are gone (removed, or lost): {few}")
    return notes


def _key(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())
