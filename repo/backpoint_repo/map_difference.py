"""Where two stored disks may differ, told from their maps alone: no data is read.

Two trees are walked side by side; what is the same node, or the same part of the same chunk, is the
same content and passed over. Decides to the block of 4 KiB: what is not told is equal. What is told
nearly always differs, but equal content that was cut at other borders is told too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from operator import add
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.disk_map import DiskMap
from backpoint_repo.format import BLOCK_SIZE, FANOUT, HOLE, ID_SIZE, LEAF_BLOCKS
from backpoint_repo.map_node import Ids, Leaf


class Range(NamedTuple):
    """Bytes [start, start + length)."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def differing_ranges(one: DiskMap, other: DiskMap) -> Iterator[Range]:
    """In order, none touching the next. What only the larger disk has counts as different.

    Raises ObjectDamaged, ObjectMissing and what loading a node raises.
    """
    pairs = ((first * BLOCK_SIZE, last * BLOCK_SIZE) for first, last in _blocks(one, other))
    return _joined(_within(pairs, *sorted((one.geometry.size, other.geometry.size))))


def _within(pairs: Iterable[tuple[int, int]], common: int, whole: int) -> Iterator[tuple[int, int]]:
    """Cut to the bytes that both disks have; then those that one has."""
    for start, end in pairs:
        yield start, min(end, common)
    yield common, whole


def _joined(pairs: Iterable[tuple[int, int]]) -> Iterator[Range]:
    begin = stop = 0
    for start, end in pairs:
        if start > stop:
            if stop > begin:
                yield Range(begin, stop - begin)
            begin = start
        stop = max(stop, end)
    if stop > begin:
        yield Range(begin, stop - begin)


def _blocks(one: DiskMap, other: DiskMap) -> Iterator[tuple[int, int]]:
    """(first, end) of differing blocks among those that both have, in order."""
    leaves = min(one.geometry.leaves, other.geometry.leaves)
    level = max(one.geometry.height, other.geometry.height)
    if leaves:
        yield from _differing((one, other), (one.root, other.root), level, 0, leaves)


def _differing(
    sides: tuple[DiskMap, DiskMap], ids: tuple[bytes, bytes], level: int, index: int, leaves: int
) -> Iterator[tuple[int, int]]:
    """Below the two nodes number `index` at `level`; leaves: how many both disks have."""
    if ids[0] == ids[1]:
        return
    if level == 0:
        yield from _leaf_difference(sides[0].leaf(index), sides[1].leaf(index), index)
        return
    below = -(-leaves // FANOUT ** (level - 1)) - index * FANOUT
    one, other = (
        _children(side, node_id, level, index)[:below]
        for side, node_id in zip(sides, ids, strict=True)
    )
    children: Iterable[int] = np.flatnonzero((one != other).any(axis=1)).tolist()
    if level == 1:
        for side in sides:
            children = side.at_hand(children, partial(add, index * FANOUT))
    for child in children:
        pair = one[child].tobytes(), other[child].tobytes()
        yield from _differing(sides, pair, level - 1, index * FANOUT + child, leaves)


def _children(side: DiskMap, node_id: bytes, level: int, index: int) -> Ids:
    """Of a node that may be a hole; above a map's root, the only child of each is the one below."""
    if level > side.geometry.height:
        return np.frombuffer(node_id, np.uint8).reshape(1, ID_SIZE)
    if node_id == HOLE:
        return np.zeros((side.geometry.children(level, index), ID_SIZE), np.uint8)
    return side.inner(node_id, level, index).ids


def _leaf_difference(one: Leaf, other: Leaf, number: int) -> Iterator[tuple[int, int]]:
    blocks = min(one.blocks, other.blocks)
    differs = (_named(one, blocks) != _named(other, blocks)).any(axis=1)
    edges = np.flatnonzero(np.diff(differs, prepend=False, append=False))
    first = number * LEAF_BLOCKS
    for start, end in edges.reshape(-1, 2).tolist():
        yield first + start, first + end


def _named(leaf: Leaf, blocks: int) -> NDArray[np.uint64]:
    """Of each block, the chunk it is from and its place in there, as five numbers; a hole's blocks
    are all the same."""
    lengths = leaf.lengths
    ids = np.repeat(np.ascontiguousarray(leaf.ids).view(np.uint64), lengths, axis=0)
    within = np.arange(leaf.blocks) - np.repeat(leaf.starts.astype(np.int64), lengths)
    within[np.repeat(leaf.holes, lengths)] = 0
    return np.column_stack((ids, within.astype(np.uint64)))[:blocks]
