"""The point that a backup stands on: which one, and whether a changed-block list can be believed on
it.

An increment is only offered where the parent's map of the disk is whole and its point still stands.
Knows how to plan reads, not how to store anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backpoint_repo.catalog import Catalog, PointSummary, read_point, standing_point
from backpoint_repo.disk_map import DiskMap, SaveNode
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.index import Index
from backpoint_repo.leaf_scan import LeafPlan, changed_blocks, plan_changed
from backpoint_repo.lost_ranges import lost_ranges
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.point import Disk, Point
from backpoint_repo.resized_map import resize_map
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.source.contract import ImageSource


@dataclass(frozen=True)
class ReadPlan:
    """What to read, and the map to graft it onto (None: onto zeros)."""

    base: DiskMap | None
    leaves: Iterable[LeafPlan]


class ParentPoint:
    """`point` is None where there is nothing to stand on: then every disk is read in full."""

    def __init__(
        self, sealed: SealedStore, index: Index, nodes: NodeReader, point: Point | None
    ) -> None:
        self._sealed = sealed
        self._index = index
        self._nodes = nodes
        self.point = point

    def plan_increment(
        self, key: str, source: ImageSource, changed: Sequence[tuple[int, int]]
    ) -> ReadPlan | str:
        """How to read only `changed` (offset, length), or why the disk must be read in full.

        To be asked under a lease that pins the parent: then no collector takes its chunks.
        """
        base = self.map_of(key, source)
        if isinstance(base, str):
            return base
        try:
            ranges = [*changed, *lost_ranges(base, self._index)]
            return ReadPlan(base, self._leaves(base, source, ranges))
        except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
            return f"the earlier point's map has gaps: {error}"

    def plan_resized(
        self, key: str, source: ImageSource, changed: Sequence[tuple[int, int]], save: SaveNode
    ) -> ReadPlan | str:
        """As `plan_increment`, of a disk that may have another size now.

        changed: also all behind the smaller of both sizes that is not zero.
        """
        base = self._map(key)
        if isinstance(base, str):
            return base
        try:
            lost = lost_ranges(base, self._index)
            resized = resize_map(base, source.size, self._nodes.load, save)
            ranges = [*changed, *resized.unknown, *lost]
            return ReadPlan(resized.map, self._leaves(resized.map, source, ranges))
        except (ObjectMissing, ObjectDamaged, UnknownFormat) as error:
            return f"the earlier point's map has gaps: {error}"

    def map_of(self, key: str, source: ImageSource) -> DiskMap | str:
        """The parent's map of a disk, or why `source` cannot be seen as its continuation."""
        base = self._map(key)
        if not isinstance(base, str) and base.geometry.size != source.size:
            return f"its size changed from {base.geometry.size} to {source.size} bytes"
        return base

    def _map(self, key: str) -> DiskMap | str:
        disk = self._disk(key)
        if disk is None:
            return "no earlier point holds this disk"
        if not self._stands():
            return "the earlier point was removed meanwhile"
        return DiskMap(disk.size, disk.root, self._nodes.load, self._nodes.bringing)

    def _leaves(
        self, base: DiskMap, source: ImageSource, ranges: Sequence[tuple[int, int]]
    ) -> list[LeafPlan]:
        """Made whole before anything is stored: every node the graft needs is read here."""
        plans = list(plan_changed(source, base, changed_blocks(ranges, source.size)))
        if not plans and base.geometry.leaves:
            base.leaf(0)
        return plans

    def _disk(self, key: str) -> Disk | None:
        disks = self.point.disks if self.point else ()
        return next((disk for disk in disks if disk.key == key), None)

    def _stands(self) -> bool:
        assert self.point is not None
        try:
            return standing_point(self._sealed, self.point.point_id) is not None
        except ObjectMissing:
            return False


def newest_point(sealed: SealedStore, catalog: Catalog, vm: str) -> Point | None:
    """The newest point of a VM whose object can be read; a branch only where there is nothing else.

    What a live session committed is no state that production ever had: a changed-block list tells
    what changed since the last backup of production. Raises StoreUnavailable.
    """
    branch = None
    own = [point for point in catalog.refresh() if point.vm == vm]
    for summary in sorted(own, key=_recency, reverse=True):
        try:
            point = read_point(sealed, summary.point_id)
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            continue
        if point is not None and not point.branch:
            return point
        branch = branch or point
    return branch


def given_point(sealed: SealedStore, point_id: bytes) -> Point:
    """This very point. Raises ObjectMissing where it is gone, ObjectDamaged, UnknownFormat."""
    what = f"point {point_id.hex()}, which the new point was to stand on,"
    try:
        point = read_point(sealed, point_id)
    except ObjectMissing:
        raise ObjectMissing(f"{what} is not in the repository any more") from None
    if point is None:
        raise ObjectMissing(f"{what} was revoked before it was published")
    return point


def _recency(point: PointSummary) -> tuple[int, float]:
    # A clock going backwards, or `--time`, must not hide the newest state.
    return point.generation, point.created
