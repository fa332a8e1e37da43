"""Is the repository whole? Every object, every pack, every point's tree; and, if asked, every blob.

The order: which objects are there and open, then packs, then trees, so that a damaged pack is told
as the points and ranges it hurts. Damaged copies are marked, so that nothing is deduplicated onto
them; those marks are all it writes. A mark of an earlier check holds until its copy is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from backpoint_repo.catalog import read_point
from backpoint_repo.check_report import CheckReport, DamagedObject, HurtRange
from backpoint_repo.errors import (
    BackpointError,
    ObjectDamaged,
    ObjectMissing,
    StoreUnavailable,
    UnknownFormat,
)
from backpoint_repo.exclusions import mark_damaged, read_exclusions
from backpoint_repo.format import FOLDERS, Kind, object_key
from backpoint_repo.key_slots import verify_slot
from backpoint_repo.pack_check import PackCheck, PackFindings
from backpoint_repo.point import Point
from backpoint_repo.point_note import verify_note
from backpoint_repo.point_proof import verify_proof_note
from backpoint_repo.repository import Repository
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.tree_check import TreeCheck

_NAMED_MAX: Final = 10
_LOOKED_INTO: Final = (
    *(Kind.SLOT, Kind.INDEX, Kind.LEASE, Kind.TRASH),
    *(Kind.DAMAGE, Kind.CATALOG, Kind.NOTE),
)


class CheckProgress(Protocol):
    """Told what is being looked at."""

    def phase(self, name: str, total: int) -> None:
        """A new phase with `total` steps begins."""

    def advance(self, steps: int) -> None:
        """So many steps are done."""


class Silent:
    """Progress for callers who want none."""

    def phase(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""


def check_repository(
    repository: Repository,
    read_share: float | None = None,
    progress: CheckProgress | None = None,
) -> CheckReport:
    """Look at everything; read the blobs of `read_share` (0 to 1) of all packs, None: of none.

    With the agent credential data is not opened but held against the digests of what was stored:
    that finds rot, not what a hostile agent stored. What cannot be read now is in the report.
    """
    progress = progress or Silent()
    damaged, unreadable = _check_objects(repository, progress)
    points, broken, blocked = _load_points(repository)
    repository.index.refresh()
    unlisted = repository.index.learn_unlisted_packs()
    packs = _check_packs(repository, read_share, progress)
    marked, notes = _mark(repository, packs)
    trees = TreeCheck(repository.index, repository.nodes.load, packs.bad_copies)
    hurt = _check_trees(trees, points, progress, unreadable)
    harmful, harmless = _sorted_by_harm(packs, trees.hurting)
    notes += _oddities(repository, unlisted)
    if read_share is not None and repository.sealed.keyring.owner_private is None:
        notes.append("data was compared as it was sealed; only the owner's key can open it")
    return CheckReport(
        points=len(points),
        packs=packs.packs,
        chunks=packs.chunks,
        read_bytes=packs.read_bytes,
        damaged=(*damaged, *broken, *harmful),
        hurt=tuple(hurt),
        unreadable=(*unreadable, *blocked, *packs.unreadable),
        marked=marked,
        notes=(*notes, *harmless),
    )


def _sorted_by_harm(
    packs: PackFindings, hurting: set[bytes]
) -> tuple[list[DamagedObject], list[str]]:
    """Packs that hurt a point, and notes on those whose bad copies all have a good one elsewhere.

    So a repository that healed by storing chunks anew is clean, although the bad copies still lie
    there until they are collected.
    """
    keys = {
        object_key(pack.kind, pack.name.hex())
        for content_id, pack in packs.bad_copies
        if content_id in hurting
    }
    harmful = [item for item in packs.damaged if item.key in keys]
    rest = [item for item in packs.damaged if item.key not in keys]
    return harmful, [f"{item.key}: {item.problem}; no point depends on it" for item in rest]


def _check_objects(
    repository: Repository, progress: CheckProgress
) -> tuple[list[DamagedObject], list[str]]:
    """Everything but packs and points: does it open?"""
    sealed = repository.sealed
    jobs: list[tuple[str, Callable[[], object]]] = []
    for kind in _LOOKED_INTO:
        for name in list(sealed.names(kind)):
            jobs.append((object_key(kind, name), _opening(repository, kind, name)))
    progress.phase("objects", len(jobs))
    damaged, unreadable = [], []
    for key, job in jobs:
        try:
            job()
        except ObjectMissing:
            pass  # leases and merged segments come and go while we look
        except (ObjectDamaged, UnknownFormat) as error:
            damaged.append(DamagedObject(key, str(error)))
        except StoreUnavailable as error:
            unreadable.append(str(error))
        progress.advance(1)
    return damaged, unreadable


def _opening(repository: Repository, kind: Kind, name: str) -> Callable[[], object]:
    if kind is Kind.SLOT:
        return lambda: verify_slot(repository.sealed, name)
    if kind is Kind.NOTE:
        return lambda: _verify_note(repository.sealed, name)
    return lambda: repository.sealed.get(kind, name)


def _verify_note(sealed: SealedStore, name: str) -> None:
    verify_proof_note(sealed, verify_note(sealed, name))


def _load_points(repository: Repository) -> tuple[list[Point], list[DamagedObject], list[str]]:
    points, broken, blocked = [], [], []
    for name in sorted(repository.sealed.names(Kind.POINT)):
        key = f"{FOLDERS[Kind.POINT]}/{name}"
        try:
            point = read_point(repository.sealed, bytes.fromhex(name))
        except ObjectMissing:
            continue
        except (ObjectDamaged, UnknownFormat, ValueError) as error:
            broken.append(DamagedObject(key, f"this point cannot be read: {error}"))
            continue
        except StoreUnavailable as error:
            blocked.append(str(error))
            continue
        if point is not None:
            points.append(point)
    return points, broken, blocked


def _check_packs(
    repository: Repository, read_share: float | None, progress: CheckProgress
) -> PackFindings:
    kinds = (Kind.DATA_PACK, Kind.NODE_PACK)
    progress.phase("packs", sum(1 for kind in kinds for _ in repository.sealed.names(kind)))
    check = PackCheck(repository.sealed, repository.index, repository.nodes, repository.chunks)
    return check.run(read_share, progress.advance)


def _check_trees(
    check: TreeCheck, points: list[Point], progress: CheckProgress, unreadable: list[str]
) -> list[HurtRange]:
    progress.phase("points", len(points))
    hurt: list[HurtRange] = []
    for point in points:
        try:
            hurt += check.hurt_ranges(point)
        except StoreUnavailable as error:
            unreadable.append(str(error))
        progress.advance(1)
    return hurt


def _mark(repository: Repository, packs: PackFindings) -> tuple[int, list[str]]:
    """Mark what is bad and not marked yet, and take over the marks of what was not read now.

    A store that cannot be written is worth a note only.
    """
    try:
        known = read_exclusions(repository.sealed).damaged
        fresh = [copy for copy in packs.bad_copies if copy not in known]
        for copy in known:
            if copy[1] not in packs.read:
                packs.bad_copies.setdefault(copy, "an earlier check marked it as damaged")
        if not fresh:
            return 0, []
        mark_damaged(repository.sealed, fresh, repository.clock())
    except BackpointError as error:
        return 0, [f"damaged chunks could not be marked: {error}"]
    return len(fresh), []


def _oddities(repository: Repository, unlisted: int) -> list[str]:
    """What is no damage, and might be a trace of some."""
    notes = []
    if unlisted:
        notes.append(
            f"{unlisted} packs are in no index segment (a backup is running, or a segment was "
            "lost); the next backup lists them"
        )
    try:
        gone = repository.catalog.gone()
    except BackpointError as error:
        return [*notes, f"the catalogue cannot be read: {error}"]
    if gone:
        few = ", ".join(object_key(Kind.POINT, name) for name in gone[:_NAMED_MAX])
        notes.append(f"{len(gone)} points of the catalogue are gone (removed, or lost): {few}")
    return notes
