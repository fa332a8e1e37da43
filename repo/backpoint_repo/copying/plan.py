"""Which points are to be copied, in which order, and on which each can stand: pure functions.

Of each VM the oldest first, so that what is interrupted leaves a beginning that later points stand
on; of all VMs the first ones before any second one. Knows no store, only summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from operator import attrgetter
from typing import Final

from backpoint_repo.catalog import PointSummary
from backpoint_repo.copying.origin import identity_of

MADE: Final = attrgetter("generation", "created", "time", "point_id")
"""By who stands on whom: the order that clocks cannot spoil."""
_REPOSITORY: Final = 16
"""Bytes of an identity that name the repository."""


@dataclass(frozen=True)
class Stock:
    """What there is in one repository."""

    repository_id: bytes
    points: Sequence[PointSummary]

    def identity(self, point: PointSummary) -> bytes:
        """See `origin.py`."""
        return identity_of(self.repository_id, point)

    def by_identity(self) -> dict[bytes, bytes]:
        """Ids of its points."""
        return {self.identity(point): point.point_id for point in self.points}

    def by_vm(
        self, chosen: Callable[[str], bool] = lambda _: True
    ) -> dict[str, list[PointSummary]]:
        """Its points, in the order in which they were made."""
        found: dict[str, list[PointSummary]] = {}
        for point in sorted(self.points, key=lambda point: (point.vm, MADE(point))):
            if chosen(point.vm):
                found.setdefault(point.vm, []).append(point)
        return found


def plan_missing(
    source: Stock, target: Stock, vms: Collection[str], since: float = 0.0
) -> list[PointSummary]:
    """Points of these VMs that the target has not. since: the earliest moment that is wanted."""
    there = target.by_identity()
    return _in_turns(
        [p for p in points if p.time >= since and source.identity(p) not in there]
        for points in source.by_vm(vms.__contains__).values()
    )


def count_there(source: Stock, target: Stock, vms: Collection[str], since: float = 0.0) -> int:
    """Those that `plan_missing` passes over because the target has them."""
    there = target.by_identity()
    wanted = (p for p in source.points if p.vm in vms and p.time >= since)
    return sum(source.identity(point) in there for point in wanted)


def plan_newer(
    source: Stock, target: Stock, vms: Collection[str], since: float = 0.0
) -> list[PointSummary]:
    """Points of these VMs that came after the newest that the target ever got of each: what it has
    pruned is not wanted again. since: for VMs of which it has none."""
    there = target.by_identity()
    copies = _copies_by_vm(source, target)
    return _in_turns(
        _newer(source, points, there, copies.get(vm, ()), since)
        for vm, points in source.by_vm(vms.__contains__).items()
    )


def base_of(
    point_id: bytes,
    parent: bytes | None,
    siblings: Sequence[PointSummary],
    copies: Mapping[bytes, bytes],
) -> bytes | None:
    """The point that is likely most like this one, of those that both repositories have.

    siblings: the VM's points as they were made. copies: ids in the target, by ids in the source.
    """
    if parent is not None and parent in copies:
        return parent
    ids = [sibling.point_id for sibling in siblings]
    at = ids.index(point_id) if point_id in ids else len(ids)
    nearest = chain(reversed(ids[:at]), ids[at + 1 :])
    return next((found for found in nearest if found in copies), None)


def _newer(
    source: Stock,
    points: list[PointSummary],
    there: Mapping[bytes, bytes],
    copies: Sequence[PointSummary],
    since: float,
) -> list[PointSummary]:
    """points: all of one VM. copies: in the target, of points of this VM, also of such as are gone.

    Neither order alone will do: a live session's commit is of an early generation, and a clock that
    was put back makes new points look old. What was cut short went on in the order `MADE`.
    """
    missing = [point for point in points if source.identity(point) not in there]
    common = [point for point in points if source.identity(point) in there]
    if common:
        generation = max(point.generation for point in common)
        created = max(point.created for point in common)
        last = max(map(MADE, common))
        return [
            p for p in missing if p.generation > generation or p.created > created or MADE(p) > last
        ]
    if copies:
        generation = max(point.generation for point in copies)
        time = max(point.time for point in copies)
        return [p for p in missing if p.generation > generation or p.time > time]
    return [point for point in missing if point.time >= since]


def _copies_by_vm(source: Stock, target: Stock) -> dict[str, list[PointSummary]]:
    """Points of the target that came from where the source's points came from."""
    repositories = {source.identity(point)[:_REPOSITORY] for point in source.points}
    found: dict[str, list[PointSummary]] = {}
    for point in target.points:
        if target.identity(point)[:_REPOSITORY] in repositories:
            found.setdefault(point.vm, []).append(point)
    return found


def _in_turns(queues: Iterable[list[PointSummary]]) -> list[PointSummary]:
    rounds = zip_longest(*queues)
    return [point for one in rounds for point in one if point is not None]
