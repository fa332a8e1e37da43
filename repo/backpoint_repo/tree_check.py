"""Does every point's tree lead to chunks that are there? Walks maps; shared subtrees are walked
once.

Turns bad copies into what they mean for people: which ranges of which disks of which points. What
is good is for the index to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from backpoint_repo.check_report import HurtRange
from backpoint_repo.disk_map import BringNodes, DiskMap
from backpoint_repo.errors import ObjectDamaged, ObjectMissing
from backpoint_repo.format import BLOCK_SIZE, FANOUT, HOLE, LEAF_SIZE
from backpoint_repo.index import Index, ids_of
from backpoint_repo.index_segment import PackRef
from backpoint_repo.map_node import Leaf
from backpoint_repo.point import FILE_CHUNK, ConfigFile, Disk, Point

_RANGES_MAX: Final = 1 << 12
"""Ranges of one disk that are told one by one. A map may name a node as often as it has room for,
2^35 times if somebody means harm."""


class _Hurt(NamedTuple):
    offset: int
    length: int
    content_id: bytes
    problem: str


class _Node(NamedTuple):
    """known: whether it has a good copy."""

    node_id: bytes
    level: int
    number: int
    known: bool


class TreeCheck:
    """For one thread."""

    def __init__(
        self,
        index: Index,
        load_node: Callable[[bytes], bytes],
        bad_copies: Mapping[tuple[bytes, PackRef], str],
        bring: BringNodes | None = None,
    ) -> None:
        """index: whose `known` says what has a good copy. bad_copies: (content id, pack) -> what is
        wrong with it, as far as that was found out. bring: see `DiskMap`."""
        self._index = index
        self._load = load_node
        self._bring = bring
        self._bad_copies = bad_copies
        self._good_nodes: set[tuple[bytes, int]] = set()
        self._bad_nodes: dict[bytes, str] = {}
        self.hurting: dict[tuple[bytes, PackRef], str] = {}
        """Copies that hurt a point looked at so far, because no other is good, and why."""

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
            disk_map = DiskMap(disk.size, disk.root, self._load, self._bring)
        except ObjectDamaged as error:
            return [_Hurt(0, disk.size, disk.root, str(error))]
        if not disk_map.geometry.leaves:
            return []
        hurt: list[_Hurt] = []
        known = disk.root != HOLE and bool(self._index.known(ids_of([disk.root]))[0])
        self._walk(disk_map, _Node(disk.root, disk_map.geometry.height, 0, known), hurt)
        return [item._replace(length=min(item.length, disk.size - item.offset)) for item in hurt]

    def _walk(self, disk_map: DiskMap, node: _Node, hurt: list[_Hurt]) -> None:
        span = LEAF_SIZE * FANOUT**node.level
        # What is whole under one disk may contradict another one's size.
        fits = node.node_id, min(span, disk_map.geometry.size - node.number * span)
        if node.node_id == HOLE or fits in self._good_nodes:
            return
        before = len(hurt)
        if before >= _RANGES_MAX and node.node_id in self._bad_nodes:
            problem = f"at least in part: {self._bad_nodes[node.node_id]}"
            hurt.append(_Hurt(node.number * span, span, node.node_id, problem))
            return
        if not node.known:
            problem = self._problem(node.node_id)
            hurt.append(_Hurt(node.number * span, span, node.node_id, problem))
            return
        try:
            if node.level == 0:
                hurt += self._check_leaf(disk_map.leaf(node.number), node.number * LEAF_SIZE)
            else:
                for child in disk_map.at_hand(self._children(disk_map, node), self._new_leaf):
                    self._walk(disk_map, child, hurt)
        except (ObjectDamaged, ObjectMissing) as error:
            hurt.append(_Hurt(node.number * span, span, node.node_id, str(error)))
        if len(hurt) == before:
            self._good_nodes.add(fits)
        else:
            self._bad_nodes[node.node_id] = hurt[-1].problem

    def _children(self, disk_map: DiskMap, node: _Node) -> list[_Node]:
        ids = disk_map.inner(node.node_id, node.level, node.number).ids
        first, level = node.number * FANOUT, node.level - 1
        return [
            _Node(ids[at].tobytes(), level, first + at, known)
            for at, known in enumerate(self._index.known(ids).tolist())
        ]

    def _new_leaf(self, node: _Node) -> int | None:
        """The number of a leaf that will be loaded."""
        new = node.known and (node.node_id, LEAF_SIZE) not in self._good_nodes
        return node.number if new and node.level == 0 else None

    def _check_leaf(self, leaf: Leaf, base: int) -> list[_Hurt]:
        known = self._index.known(leaf.ids)
        hurt = []
        for at in np.flatnonzero(~known & leaf.ids.any(axis=1)).tolist():
            start, end, content_id = leaf.entry_at(at)
            offset, length = base + start * BLOCK_SIZE, (end - start) * BLOCK_SIZE
            hurt.append(_Hurt(offset, length, content_id, self._problem(content_id)))
        return hurt

    def _check_file(self, file: ConfigFile) -> list[_Hurt]:
        if -(-file.size // FILE_CHUNK) != len(file.chunks):
            return [_Hurt(0, file.size, HOLE, "its size contradicts its chunks")]
        if not file.chunks:
            return []
        known = self._index.known(ids_of(list(file.chunks)))
        return [
            _Hurt(at * FILE_CHUNK, FILE_CHUNK, file.chunks[at], self._problem(file.chunks[at]))
            for at in np.flatnonzero(~known).tolist()
        ]

    def _problem(self, content_id: bytes) -> str:
        """Why none of its copies is good."""
        problem = "it is in no index"
        for place in self._index.copies(content_id):
            copy = (content_id, place.pack)
            problem = self._bad_copies.get(copy, "its pack is missing or cut short")
            self.hurting[copy] = problem
        return problem

    def _range(self, point: Point, disk: str, hurt: _Hurt) -> HurtRange:
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
