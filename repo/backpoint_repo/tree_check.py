"""Does every point's tree lead to chunks that are there? Walks maps; shared subtrees are walked
once.

Turns bad copies into what they mean for people: which ranges of which disks of which points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from backpoint_repo.check_report import HurtRange
from backpoint_repo.disk_map import DiskMap
from backpoint_repo.errors import ObjectDamaged, ObjectMissing
from backpoint_repo.format import BLOCK_SIZE, FANOUT, HOLE, LEAF_SIZE
from backpoint_repo.index import Index, ids_of
from backpoint_repo.index_segment import PackRef
from backpoint_repo.map_node import Leaf
from backpoint_repo.point import FILE_CHUNK, ConfigFile, Disk, Point


class _Hurt(NamedTuple):
    offset: int
    length: int
    content_id: bytes
    problem: str


class TreeCheck:
    """For one thread. bad_copies: (content id, pack) -> reason, as `pack_check.py` found them."""

    def __init__(
        self,
        index: Index,
        load_node: Callable[[bytes], bytes],
        bad_copies: Mapping[tuple[bytes, PackRef], str],
    ) -> None:
        self._index = index
        self._load = load_node
        self._bad_copies = bad_copies
        self._bad_ids = {content_id for content_id, _ in bad_copies}
        self._good_nodes: set[bytes] = set()
        self.hurting: set[bytes] = set()
        """Ids of chunks and nodes that hurt a point looked at so far."""

    def hurt_ranges(self, point: Point) -> list[HurtRange]:
        """What of a point cannot be read right; empty if all is well. Raises StoreUnavailable."""
        found = []
        for disk in point.disks:
            found += [self._range(point, disk.key, hurt) for hurt in self._check_disk(disk)]
        for file in point.files:
            found += [self._range(point, file.name, hurt) for hurt in self._check_file(file)]
        return _joined(found)

    def _check_disk(self, disk: Disk) -> list[_Hurt]:
        try:
            disk_map = DiskMap(disk.size, disk.root, self._load)
        except ObjectDamaged as error:
            return [_Hurt(0, disk.size, disk.root, str(error))]
        if not disk_map.geometry.leaves:
            return []
        hurt: list[_Hurt] = []
        self._walk(disk_map, disk.root, disk_map.geometry.height, 0, hurt)
        return [item._replace(length=min(item.length, disk.size - item.offset)) for item in hurt]

    def _walk(
        self, disk_map: DiskMap, node_id: bytes, level: int, index: int, hurt: list[_Hurt]
    ) -> None:
        if node_id == HOLE or node_id in self._good_nodes:
            return
        before = len(hurt)
        span = LEAF_SIZE * FANOUT**level
        if node_id in self._bad_ids and (problem := self._problem(node_id)) is not None:
            hurt.append(_Hurt(index * span, span, node_id, problem))
            return
        try:
            if level == 0:
                leaf = disk_map.leaf(index)
                hurt += self._check_leaf(leaf, index * LEAF_SIZE)
            else:
                ids = disk_map.inner(node_id, level, index).ids
                for child in range(len(ids)):
                    child_index = index * FANOUT + child
                    self._walk(disk_map, ids[child].tobytes(), level - 1, child_index, hurt)
        except (ObjectDamaged, ObjectMissing) as error:
            hurt.append(_Hurt(index * span, span, node_id, str(error)))
        if len(hurt) == before:
            self._good_nodes.add(node_id)

    def _check_leaf(self, leaf: Leaf, base: int) -> list[_Hurt]:
        known = self._index.known(leaf.ids)
        hurt = []
        for at in range(len(leaf.starts_list)):
            start, end, content_id = leaf.entry_at(at)
            if content_id == HOLE or (known[at] and content_id not in self._bad_ids):
                continue
            problem = self._problem(content_id)
            if problem is not None:
                offset, length = base + start * BLOCK_SIZE, (end - start) * BLOCK_SIZE
                hurt.append(_Hurt(offset, length, content_id, problem))
        return hurt

    def _check_file(self, file: ConfigFile) -> list[_Hurt]:
        if -(-file.size // FILE_CHUNK) != len(file.chunks):
            return [_Hurt(0, file.size, HOLE, "its size contradicts its chunks")]
        if not file.chunks:
            return []
        known = self._index.known(ids_of(list(file.chunks)))
        hurt = []
        for at, content_id in enumerate(file.chunks):
            problem = None
            if not known[at] or content_id in self._bad_ids:
                problem = self._problem(content_id)
            if problem is not None:
                hurt.append(_Hurt(at * FILE_CHUNK, FILE_CHUNK, content_id, problem))
        return hurt

    def _problem(self, content_id: bytes) -> str | None:
        """None where some copy is good."""
        places = self._index.copies(content_id)
        problems = [self._bad_copies.get((content_id, place.pack)) for place in places]
        if not problems:
            return "it is in no index"
        return None if None in problems else problems[0]

    def _range(self, point: Point, disk: str, hurt: _Hurt) -> HurtRange:
        self.hurting.add(hurt.content_id)
        return HurtRange(
            point.vm,
            point.point_id,
            point.time,
            disk,
            hurt.offset,
            hurt.length,
            hurt.content_id.hex()[:16],
            hurt.problem,
        )


def _joined(ranges: list[HurtRange]) -> list[HurtRange]:
    """Neighbours on one disk with the same problem become one range."""
    joined: list[HurtRange] = []
    for item in ranges:
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.disk, last.problem) == (item.disk, item.problem)
            and last.offset + last.length == item.offset
        ):
            joined[-1] = replace(last, length=last.length + item.length)
        else:
            joined.append(item)
    return joined
