"""A disk's map for another size: the same chunks as far as both reach, zeros behind.

For a disk that was made longer or shorter and whose writer knows what it wrote: the map of before
is fitted, instead of the disk being read in full. Every leaf that both have whole is shared; the
one at the border, and the inner nodes, are made anew. Knows no stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backpoint_repo.disk_map import DiskMap, Geometry, LoadNode, NewLeaf, SaveNode, graft
from backpoint_repo.format import BLOCK_SIZE, FANOUT, HOLE, LEAF_BLOCKS, LEAF_SIZE
from backpoint_repo.map_node import Leaf, leaf_of


@dataclass(frozen=True)
class ResizedMap:
    """unknown: (offset, length) in bytes of what the map cannot tell: it has to be read anew."""

    map: DiskMap
    unknown: tuple[tuple[int, int], ...]


def resize_map(old: DiskMap, size: int, load: LoadNode, save: SaveNode) -> ResizedMap:
    """load: as of `old`. Nodes that `save` was given need not be loadable yet.

    Raises ObjectMissing, ObjectDamaged where the old map has gaps.
    """
    made: dict[bytes, bytes] = {}

    def keep(plain: bytes) -> bytes:
        node_id = save(plain)
        made[node_id] = plain
        return node_id

    def load_any(node_id: bytes) -> bytes:
        return made[node_id] if node_id in made else load(node_id)

    geometry = Geometry(size)
    leaves = {
        number: leaf for number, leaf in _leaves(old, geometry.leaves) if number < geometry.leaves
    }
    cut_at = None
    border = min(old.geometry.leaves, geometry.leaves) - 1
    if border in leaves and old.geometry.leaf_blocks(border) != geometry.leaf_blocks(border):
        fitted, cut_at = _fitted(old.leaf(border), geometry.leaf_blocks(border))
        node_id = keep(fitted.encode()) if fitted.ids.any() else HOLE
        leaves[border] = NewLeaf(node_id, fitted.allocated)
    root = graft(geometry, None, leaves, keep).node_id if leaves else HOLE
    return ResizedMap(DiskMap(size, root, load_any), tuple(_unknown(old, size, border, cut_at)))


def _leaves(old: DiskMap, end: int) -> Iterator[tuple[int, NewLeaf]]:
    """Those that are not all zero, and few beyond number `end`: an earlier disk may be any size."""
    if old.geometry.height == 0:
        if old.root != HOLE and old.geometry.leaves:
            yield 0, NewLeaf(old.root, old.leaf(0).allocated)
        return
    for node_id, level, index in old.nodes():
        if index * FANOUT**level >= end:
            return
        if level != 1:
            continue
        inner = old.inner(node_id, level, index)
        for child, allocated in enumerate(inner.allocated.tolist()):
            if allocated:
                leaf_id = inner.ids[child].tobytes()
                yield index * FANOUT + child, NewLeaf(leaf_id, allocated)


def _fitted(leaf: Leaf, blocks: int) -> tuple[Leaf, int | None]:
    """The leaf with this many blocks, and where a chunk began that was cut in two."""
    entries = [leaf.entry_at(at) for at in range(len(leaf.starts_list))]
    kept = [(start, content_id) for start, _, content_id in entries if start < blocks]
    cut_at = None
    _, end, last_id = entries[len(kept) - 1]
    if end > blocks and last_id != HOLE:
        cut_at = kept[-1][0]
        kept[-1] = (cut_at, HOLE)
    elif end < blocks:
        kept.append((end, HOLE))
    joined = [
        entry for at, entry in enumerate(kept) if not (at and entry[1] == kept[at - 1][1] == HOLE)
    ]
    return leaf_of([start for start, _ in joined], [found for _, found in joined], blocks), cut_at


def _unknown(old: DiskMap, size: int, border: int, cut_at: int | None) -> Iterator[tuple[int, int]]:
    if cut_at is not None:
        start = (border * LEAF_BLOCKS + cut_at) * BLOCK_SIZE
        yield start, min(size, (border + 1) * LEAF_SIZE) - start
    if size < old.geometry.size and size % BLOCK_SIZE:
        # What followed in the last block is zero now.
        yield size - size % BLOCK_SIZE, size % BLOCK_SIZE
