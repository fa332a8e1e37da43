"""The tree that says which chunk lies where on a disk: how it is walked and how it is grafted.

Every point's tree is complete; unchanged nodes are shared with other points because they are
content-addressed. Grafting replaces leaves and rewrites only their ancestors, so an incremental
costs what changed, not what the disk holds. Nodes come and go through two callables: knows no
stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import numpy as np

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import (
    BLOCK_SIZE,
    FANOUT,
    HOLE,
    ID_SIZE,
    LEAF_BLOCKS,
    LEAF_SIZE,
    MAX_DISK_SIZE,
)
from backpoint_repo.map_node import Inner, Leaf, decode_inner, decode_leaf, hole_leaf

T = TypeVar("T")
LoadNode = Callable[[bytes], bytes]
"""id -> plain bytes of the node, verified against the id."""
BringNodes = Callable[[Sequence[bytes]], None]
"""ids of nodes, HOLE among them, that will be loaded soon."""
_AT_HAND: Final = 32
"""Leaves brought at once for who walks: a map of 1 GiB, in 600 KB."""
SaveNode = Callable[[bytes], bytes]
"""plain bytes of a node -> its id, after it is (or already was) stored."""


@dataclass(frozen=True)
class Geometry:
    """What follows from a disk's size in bytes."""

    size: int

    @property
    def blocks(self) -> int:
        """4 KiB blocks; the last may lie partly behind the disk's end and is zero there."""
        return -(-self.size // BLOCK_SIZE)

    @property
    def leaves(self) -> int:
        return -(-self.blocks // LEAF_BLOCKS)

    @property
    def height(self) -> int:
        """Levels of inner nodes; 0 where the root is a leaf (or the disk is empty)."""
        height, reach = 0, 1
        while reach < self.leaves:
            height, reach = height + 1, reach * FANOUT
        return height

    def leaf_blocks(self, leaf: int) -> int:
        """Blocks that leaf number `leaf` covers."""
        return min(LEAF_BLOCKS, self.blocks - leaf * LEAF_BLOCKS)

    def children(self, level: int, index: int) -> int:
        """Children of inner node number `index` (counted from the disk's start) at `level`."""
        below = -(-self.leaves // FANOUT ** (level - 1))
        return int(min(FANOUT, below - index * FANOUT))

    def reach(self, level: int, index: int) -> int:
        """Bytes of the disk under node number `index` at `level`."""
        span = LEAF_SIZE * int(FANOUT**level)
        return min(span, self.size - index * span)


@dataclass(frozen=True)
class NewLeaf:
    """What a graft needs of a leaf: its id (HOLE if all zero) and its blocks that hold data."""

    node_id: bytes
    allocated: int


class DiskMap:
    """One disk's map, walked lazily. Thread-safe as far as `load` is."""

    def __init__(
        self, size: int, root: bytes, load: LoadNode, bring: BringNodes | None = None
    ) -> None:
        """bring: None where each node is loaded as fast alone.

        Raises ObjectDamaged where `size` or `root` is impossible.
        """
        if not 0 <= size <= MAX_DISK_SIZE or len(root) != ID_SIZE:
            raise ObjectDamaged("a disk has an impossible size or root")
        self.geometry = Geometry(size)
        self.root = root
        self._load = load
        self._bring = bring

    def leaf(self, number: int) -> Leaf:
        """Leaf `number`, 0 <= number < leaves. Raises ObjectDamaged, ObjectMissing."""
        node_id = self.leaf_id(number)
        blocks = self.geometry.leaf_blocks(number)
        return hole_leaf(blocks) if node_id == HOLE else decode_leaf(self._load(node_id), blocks)

    def leaf_id(self, number: int) -> bytes:
        """The node id of leaf `number`; HOLE where it is all zero."""
        node_id = self.root
        for level in range(self.geometry.height, 0, -1):
            if node_id == HOLE:
                return HOLE
            span = FANOUT ** (level - 1)
            inner = self.inner(node_id, level, number // (span * FANOUT))
            node_id = inner.ids[number // span % FANOUT].tobytes()
        return node_id

    def bring(self, first: int, end: int) -> None:
        """Have leaves [first, end) at hand, as far as there are such, in few requests."""
        if self._bring is not None:
            end = min(end, self.geometry.leaves)
            self._bring([self.leaf_id(number) for number in range(first, end)])

    def at_hand(self, items: Iterable[T], leaf_of: Callable[[T], int | None]) -> Iterator[T]:
        """The items as they are, for each of which a leaf will be asked for, or none: the leaves
        come many at a time. Raises as `leaf`, where nodes above them cannot be read."""
        if self._bring is None:
            yield from items
            return
        left = iter(items)
        while batch := list(islice(left, _AT_HAND)):
            numbers = map(leaf_of, batch)
            self._bring([self.leaf_id(number) for number in numbers if number is not None])
            yield from batch

    def inner(self, node_id: bytes, level: int, index: int) -> Inner:
        """Inner node number `index` at `level`."""
        return decode_inner(self._load(node_id), level, self.geometry.children(level, index))

    def leaves(self) -> Iterator[tuple[int, bytes]]:
        """(number, node id) of every leaf that is not all zero, in disk order."""
        if self.geometry.leaves:
            yield from self._walk(self.root, self.geometry.height, 0)

    def _walk(self, node_id: bytes, level: int, index: int) -> Iterator[tuple[int, bytes]]:
        if node_id == HOLE:
            return
        if level == 0:
            yield index, node_id
            return
        inner = self.inner(node_id, level, index)
        for child in range(len(inner.ids)):
            yield from self._walk(inner.ids[child].tobytes(), level - 1, index * FANOUT + child)

    def nodes(self, *, once: bool = False) -> Iterator[tuple[bytes, int, int]]:
        """(node id, level, index) of every node, each parent before its children.

        once: of a node that hangs in several places only the first with as much of the disk under
        it: what is whole there is whole in the others. A map may name one node 2^35 times.
        """
        if self.geometry.leaves:
            met: set[tuple[bytes, int]] | None = set() if once else None
            yield from self._nodes(self.root, self.geometry.height, 0, met)

    def _nodes(
        self, node_id: bytes, level: int, index: int, met: set[tuple[bytes, int]] | None
    ) -> Iterator[tuple[bytes, int, int]]:
        if node_id == HOLE:
            return
        if met is not None:
            fits = node_id, self.geometry.reach(level, index)
            if fits in met:
                return
            met.add(fits)
        yield node_id, level, index
        if level:
            ids = self.inner(node_id, level, index).ids
            for child in range(len(ids)):
                below = ids[child].tobytes()
                yield from self._nodes(below, level - 1, index * FANOUT + child, met)


def graft(
    geometry: Geometry, parent: DiskMap | None, leaves: Mapping[int, NewLeaf], save: SaveNode
) -> NewLeaf:
    """The root of a map with `leaves` replaced, the rest as in `parent` (None: all zero).

    `parent` has the same geometry. Only ancestors of replaced leaves are loaded and saved.
    """
    if not geometry.leaves:
        return NewLeaf(HOLE, 0)
    changed = dict(leaves)
    old_root = parent.root if parent else HOLE
    return _graft(geometry, parent, old_root, geometry.height, 0, changed, save)


def _graft(
    geometry: Geometry,
    parent: DiskMap | None,
    old: bytes,
    level: int,
    index: int,
    changed: dict[int, NewLeaf],
    save: SaveNode,
) -> NewLeaf:
    """The replacement of the subtree number `index` at `level`, which holds changed leaves."""
    if level == 0:
        return changed[index]
    span = FANOUT ** (level - 1)
    count = geometry.children(level, index)
    allocated, ids = np.zeros(count, np.uint64), np.zeros((count, ID_SIZE), np.uint8)
    if parent is not None and old != HOLE:
        before = parent.inner(old, level, index)
        allocated, ids = before.allocated.copy(), before.ids.copy()
    first = index * FANOUT
    by_child: dict[int, dict[int, NewLeaf]] = {}
    for number, leaf in changed.items():
        by_child.setdefault(number // span - first, {})[number] = leaf
    for child, part in by_child.items():
        old_child = ids[child].tobytes()
        new = _graft(geometry, parent, old_child, level - 1, first + child, part, save)
        ids[child] = np.frombuffer(new.node_id, np.uint8)
        allocated[child] = new.allocated
    if not ids.any():
        return NewLeaf(HOLE, 0)
    return NewLeaf(save(Inner(level, allocated, ids).encode()), int(allocated.sum()))
