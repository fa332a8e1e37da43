"""Whom damaged copies hurt: which ranges of which disks of which points, and which are harmless.

Knows that the repository does not stand still: a collector moves chunks and points are removed
while trees are walked, and neither is damage. What is damaged is found by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backpoint_repo.catalog import read_point
from backpoint_repo.check_report import DamagedObject, HurtRange
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable, UnknownFormat
from backpoint_repo.exclusions import Exclusions
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import Index
from backpoint_repo.index_segment import PackRef
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.trash import read_trash
from backpoint_repo.tree_check import TreeCheck

BadCopies = Mapping[tuple[bytes, PackRef], str]
"""(content id, pack) -> why this copy cannot be used."""


@dataclass(frozen=True)
class StoredPoints:
    """broken: point objects that are wrong. blocked: why others cannot be read now."""

    points: tuple[Point, ...] = ()
    broken: tuple[DamagedObject, ...] = ()
    blocked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Harm:
    """hurting: copies that hurt a point, because no other is good, and what is wrong with them.
    unreadable: why some points could not be looked at now."""

    hurt: tuple[HurtRange, ...] = ()
    hurting: BadCopies = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


def load_points(sealed: SealedStore) -> StoredPoints:
    """All points there are. Raises what listing them raises."""
    points, broken, blocked = list[Point](), list[DamagedObject](), list[str]()
    for name in sorted(sealed.names(Kind.POINT)):
        try:
            point = read_point(sealed, bytes.fromhex(name))
        except ObjectMissing:
            continue
        except (ObjectDamaged, UnknownFormat, ValueError) as error:
            problem = f"this point cannot be read: {error}"
            broken.append(DamagedObject(object_key(Kind.POINT, name), problem))
            continue
        except StoreUnavailable as error:
            blocked.append(str(error))
            continue
        if point is not None:
            points.append(point)
    return StoredPoints(tuple(points), tuple(broken), tuple(blocked))


def packs_in_trash(sealed: SealedStore) -> tuple[frozenset[PackRef], str]:
    """What a collector is about to delete, after it has copied what of it is needed; none and why
    where that cannot be read."""
    try:
        trash = read_trash(sealed)
    except (ObjectDamaged, UnknownFormat) as error:
        return frozenset(), str(error)
    return frozenset[PackRef]().union(*(trash.epochs[epoch] for epoch in trash.waiting)), ""


def good_view(repository: Repository, bad_copies: BadCopies) -> Index:
    """An index whose `known` says what has a good copy: none of these, and none in a pack that is
    missing or cut short. Costs a listing of all packs."""
    repository.index.refresh()
    repository.index.learn_unlisted_packs()
    view = repository.index.fork()
    view.exclude(Exclusions(damaged=frozenset(bad_copies)))
    view.notice_missing_packs()
    return view


def find_harm(
    repository: Repository,
    points: Sequence[Point],
    bad_copies: BadCopies,
    progress: PhaseProgress,
) -> Harm:
    """Walk the trees of these points."""
    progress.phase("points", len(points))
    unreadable: list[str] = []
    harm, affected = _walk(repository, points, bad_copies, progress, unreadable)
    if affected:
        # A collector may have moved chunks since we looked at the index, and whoever removes a
        # point lets go of them: only what is still wrong now is damage.
        standing = [point for point in affected if _stands(repository.sealed, point, unreadable)]
        progress.phase("hurt points", len(standing))
        harm, _ = _walk(repository, standing, bad_copies, progress, unreadable)
    return replace(harm, unreadable=tuple(dict.fromkeys(unreadable)))


def sorted_by_harm(
    damaged: Iterable[DamagedObject], harm: Harm
) -> tuple[list[DamagedObject], list[DamagedObject]]:
    """Packs that hurt a point, and those whose bad copies all have a good one elsewhere or are
    needed by nobody.

    So a repository that healed by storing chunks anew is clean, although the bad copies still lie
    there until they are collected.
    """
    keys = {object_key(pack.kind, pack.name.hex()) for _, pack in harm.hurting}
    items = list(damaged)
    harmful = [item for item in items if item.key in keys]
    return harmful, [item for item in items if item.key not in keys]


def _walk(
    repository: Repository,
    points: Iterable[Point],
    bad_copies: BadCopies,
    progress: PhaseProgress,
    unreadable: list[str],
) -> tuple[Harm, list[Point]]:
    view = good_view(repository, bad_copies)
    trees = TreeCheck(view, repository.nodes.load, bad_copies, repository.nodes.bringing)
    hurt, affected = list[HurtRange](), list[Point]()
    for point in points:
        try:
            found = trees.hurt_ranges(point)
        except StoreUnavailable as error:
            unreadable.append(str(error))
            found = []
        if found:
            hurt += found
            affected.append(point)
        progress.advance(1)
    return Harm(tuple(hurt), trees.hurting), affected


def _stands(sealed: SealedStore, point: Point, unreadable: list[str]) -> bool:
    try:
        sealed.store.size(object_key(Kind.POINT, point.point_id.hex()))
    except ObjectMissing:
        return False
    except StoreUnavailable as error:
        unreadable.append(str(error))
        return False
    return True
