"""What of an earlier disk nobody may build upon: ranges whose chunks have no good copy any more.

An incremental reads only what changed; without these ranges added to its list it would hand lost
chunks on from point to point for ever. Knows nothing of why a copy is lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from backpoint_repo.disk_map import DiskMap
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_SIZE
from backpoint_repo.index import Index, ids_of


def lost_ranges(disk_map: DiskMap, index: Index) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of what has to be read from the source again, in disk order.

    Walks the whole map, unless the index knows of no loss at all. Raises ObjectMissing,
    ObjectDamaged where the map itself has gaps.
    """
    if not index.has_losses():
        return
    for node_id, level, number in disk_map.nodes():
        if not index.known(ids_of([node_id]))[0]:
            raise ObjectMissing(f"map node {node_id.hex()[:16]} has no good copy")
        if level:
            continue
        leaf = disk_map.leaf(number)
        known = index.known(leaf.ids)
        for at in range(len(leaf.starts_list)):
            start, end, content_id = leaf.entry_at(at)
            if content_id != HOLE and not known[at]:
                yield number * LEAF_SIZE + start * BLOCK_SIZE, (end - start) * BLOCK_SIZE
