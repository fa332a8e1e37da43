"""What of an earlier disk nobody may build upon: ranges whose chunks have no good copy any more.

An incremental reads only what changed; without these ranges added to its list it would hand lost
chunks on from point to point for ever. Knows nothing of why a copy is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from operator import add

from backpoint_repo.disk_map import DiskMap
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.format import BLOCK_SIZE, FANOUT, HOLE, LEAF_SIZE
from backpoint_repo.index import Index, ids_of


def lost_ranges(disk_map: DiskMap, index: Index) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of what has to be read from the source again, in disk order.

    Walks the whole map, unless the index knows of no loss at all. Raises ObjectMissing,
    ObjectDamaged where the map itself has gaps.
    """
    if index.has_losses() and disk_map.geometry.leaves:
        yield from _Walk(disk_map, index).lost(disk_map.root, disk_map.geometry.height, 0)


class _Walk:
    """Remembers what is whole: a map may name one node in every place it has."""

    def __init__(self, disk_map: DiskMap, index: Index) -> None:
        self._map = disk_map
        self._index = index
        self._whole: set[tuple[bytes, int]] = set()

    def lost(self, node_id: bytes, level: int, number: int) -> Iterator[tuple[int, int]]:
        """Under node `number` of a level."""
        fits = node_id, self._map.geometry.reach(level, number)
        if node_id == HOLE or fits in self._whole:
            return
        if not self._index.known(ids_of([node_id]))[0]:
            raise ObjectMissing(f"map node {node_id.hex()[:16]} has no good copy")
        whole = True
        for found in self._under(node_id, level, number):
            whole = False
            yield found
        if whole:
            self._whole.add(fits)

    def _under(self, node_id: bytes, level: int, number: int) -> Iterator[tuple[int, int]]:
        if level == 0:
            yield from self._in_leaf(number)
            return
        ids = self._map.inner(node_id, level, number).ids
        children: Iterable[int] = range(len(ids))
        if level == 1:
            children = self._map.at_hand(children, partial(add, number * FANOUT))
        for child in children:
            yield from self.lost(ids[child].tobytes(), level - 1, number * FANOUT + child)

    def _in_leaf(self, number: int) -> Iterator[tuple[int, int]]:
        leaf = self._map.leaf(number)
        known = self._index.known(leaf.ids)
        for at in range(len(leaf.starts_list)):
            start, end, content_id = leaf.entry_at(at)
            if content_id != HOLE and not known[at]:
                yield number * LEAF_SIZE + start * BLOCK_SIZE, (end - start) * BLOCK_SIZE
