"""Pruning: what is known of points is gathered, retention decides, and what it gives up is removed.

Gathers holds, proofs, leases and the repository's minimum age. A catalogue is only a cache that a
hostile agent can write: of a VM that is to lose points all are read themselves before anything is
decided, those that stay and so take a place too. Decides nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from backpoint_repo.catalog import PointSummary, read_point, summarize
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.lease_book import read_leases
from backpoint_repo.point_hold import held_points
from backpoint_repo.point_proof import proof_names, read_history
from backpoint_repo.policy import read_policy
from backpoint_repo.repository import Repository
from backpoint_repo.retention.leftovers import drop_leftovers
from backpoint_repo.retention.plan import (
    Guards,
    Verdict,
    kept_by_any,
    newest_first,
    plan_retention,
)
from backpoint_repo.retention.removal import UNDER_WAY, Removal, remove_points
from backpoint_repo.retention.rules import Rules
from backpoint_repo.sealed_store import SealedStore

_READERS: Final = 16
_SHOWN_MAX: Final = 10
_DOUBTFUL: Final = "its proof cannot be read"


@dataclass(frozen=True)
class PrunePlan:
    """unreadable: points that cannot be read, by name, and why; none of them is removed."""

    verdicts: Sequence[Verdict]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def doomed(self) -> list[PointSummary]:
        """The points that are to go."""
        return [verdict.point for verdict in self.verdicts if not verdict.keep]


def plan_prune(repository: Repository, rules: Mapping[str, Sequence[Rules]]) -> PrunePlan:
    """rules: by name of a VM; what one of its rules keeps is kept. Other VMs are left alone.

    Raises ObjectDamaged and UnknownFormat where a policy cannot be read, and what a store raises.
    """
    sealed, now = repository.sealed, repository.clock()
    min_age_s = read_policy(sealed).min_age_s
    # Leases before points: a backup whose lease was gone has published, or never will.
    spared = {one.session: [UNDER_WAY] for one in read_leases(sealed) if not one.ended}
    points = {point.point_id: point for point in repository.catalog.refresh()}
    unreadable = dict(repository.catalog.broken)
    for point_id, why in held_points(sealed, sealed.names(Kind.NOTE), points, now).items():
        spared.setdefault(point_id, []).append(why)
    proofs = _Proofs(sealed)
    seen: set[bytes] = set()
    while True:
        verdicts, unseen = list[Verdict](), set[bytes]()
        for own in _by_vm(points.values(), rules):
            proven, doubtful = proofs.newest_good(newest_first(own, now))
            guards = Guards(proven, _joined(spared, doubtful))
            terms = (now, min_age_s, guards)
            plans = [plan_retention(own, one, *terms) for one in rules[own[0].vm]]
            joined = kept_by_any(plans)
            if not all(one.keep for one in joined):
                unseen |= {point.point_id for point in own} - seen
            verdicts += joined
        if not unseen:
            return PrunePlan(verdicts, unreadable)
        _read_again(sealed, unseen, points, unreadable)
        seen |= unseen


def apply_prune(
    repository: Repository, plan: PrunePlan, advance: Callable[[int], None] = lambda _: None
) -> Removal:
    """Remove what the plan gives up, and what a removal that was cut short left. Frees no space.

    Raises as `remove_points`.
    """
    ids = [point.point_id for point in plan.doomed]
    removal = remove_points(repository.sealed, ids, repository.clock, advance)
    drop_leftovers(repository.sealed, repository.catalog, repository.clock)
    repository.catalog.refresh()
    repository.catalog.forget([point_id.hex() for point_id in removal.removed])
    return removal


def chosen_vms(points: Iterable[PointSummary], patterns: Sequence[str]) -> list[str]:
    """Names of VMs that these shell patterns name; all without any.

    Raises UsageError for a pattern that names none.
    """
    names = sorted({point.vm for point in points})
    if not patterns:
        return names
    chosen = set()
    for pattern in patterns:
        # A name is a name first, whatever signs are in it.
        found = [pattern] if pattern in names else [n for n in names if fnmatchcase(n, pattern)]
        if not found:
            known = ", ".join(names[:_SHOWN_MAX]) or "none at all"
            raise UsageError(f"no points of a VM named {pattern!r}; there are: {known}")
        chosen |= set(found)
    return sorted(chosen)


def _by_vm(points: Iterable[PointSummary], wanted: Collection[str]) -> list[list[PointSummary]]:
    found: dict[str, list[PointSummary]] = {}
    for point in points:
        if point.vm in wanted:
            found.setdefault(point.vm, []).append(point)
    return [found[vm] for vm in sorted(found)]


class _Proofs:
    """Reads no more of them than it takes to find the newest good one of a VM, each once."""

    def __init__(self, sealed: SealedStore) -> None:
        self._sealed = sealed
        self._newest = {own: ids[0] for own, ids in proof_names(sealed).proofs.items()}
        self._known: dict[bytes, bool | None] = {}

    def newest_good(
        self, points: Sequence[PointSummary]
    ) -> tuple[set[bytes], dict[bytes, list[str]]]:
        """Of the backups and of the branches the newest with a good proof; and newer points of
        which nobody can tell. points: of one VM, newest first."""
        proven: dict[bool, bytes] = {}
        doubtful = {}
        for point in points:
            if point.branch in proven or point.point_id not in self._newest:
                continue
            good = self._is_good(point.point_id)
            if good:
                proven[point.branch] = point.point_id
            elif good is None:
                doubtful[point.point_id] = [_DOUBTFUL]
        return set(proven.values()), doubtful

    def _is_good(self, point_id: bytes) -> bool | None:
        if point_id not in self._known:
            history = read_history(self._sealed, point_id, [self._newest[point_id]])
            good = any(proof.ok for proof in history.proofs)
            self._known[point_id] = None if history.unreadable else good
        return self._known[point_id]


def _joined(
    spared: Mapping[bytes, list[str]], more: Mapping[bytes, list[str]]
) -> dict[bytes, list[str]]:
    return {**spared, **{own: [*spared.get(own, ()), *why] for own, why in more.items()}}


def _read_again(
    sealed: SealedStore,
    ids: Collection[bytes],
    points: dict[bytes, PointSummary],
    unreadable: dict[str, str],
) -> None:
    """Put what the objects say in the place of what the catalogue says."""

    def read(point_id: bytes) -> PointSummary | str | None:
        try:
            point = read_point(sealed, point_id)
        except ObjectMissing:
            return None
        except (ObjectDamaged, UnknownFormat) as error:
            return str(error)
        return None if point is None else summarize(point)

    ordered = list(ids)
    with ThreadPoolExecutor(_READERS) as threads:
        for point_id, found in zip(ordered, threads.map(read, ordered), strict=True):
            if isinstance(found, PointSummary):
                points[point_id] = found
                continue
            del points[point_id]
            if found is not None:
                unreadable[point_id.hex()] = found
