"""What a scanned leaf becomes: its windows put between what the base map has around them.

Pure: entries in, a leaf out. Runs on the threads that scan.
"""

from __future__ import annotations

from itertools import islice

from backpoint_repo.disk_map import DiskMap
from backpoint_repo.format import HOLE
from backpoint_repo.leaf_scan import ScannedLeaf
from backpoint_repo.map_node import Leaf, leaf_of

Entry = tuple[int, int, bytes]
"""First block, end block, chunk id or HOLE."""


def leaf_of_scan(scanned: ScannedLeaf, base: DiskMap | None) -> Leaf:
    """The whole leaf. base: the map its windows were planned on; None: they cover the leaf.

    Raises ObjectMissing, ObjectDamaged where the base cannot be read.
    """
    if base is None:
        # Cut as one window: in order, and no two holes touch.
        starts = [span.start for span in scanned.spans]
        return leaf_of(starts, scanned.ids, scanned.plan.windows[-1].end)
    old = base.leaf(scanned.plan.number)
    entries = [old.entry_at(at) for at in range(len(old.starts_list))]
    windows = [(window.start, window.end) for window in scanned.plan.windows]
    fresh = [
        (span.start, span.end, content_id)
        for span, content_id in zip(scanned.spans, scanned.ids, strict=True)
    ]
    return _joined(sorted(_outside(entries, windows) + fresh), old.blocks)


def _joined(entries: list[Entry], blocks: int) -> Leaf:
    """Holes that touch become one."""
    starts: list[int] = []
    ids: list[bytes] = []
    for start, _, content_id in entries:
        if not (content_id == HOLE and ids and ids[-1] == HOLE):
            starts.append(start)
            ids.append(content_id)
    return leaf_of(starts, ids, blocks)


def _outside(entries: list[Entry], windows: list[tuple[int, int]]) -> list[Entry]:
    """What no (sorted) window replaces. A hole may lie partly outside; a chunk never does."""
    kept = []
    first = 0
    for start, end, content_id in entries:
        while first < len(windows) and windows[first][1] <= start:
            first += 1
        position = start
        for window_start, window_end in islice(windows, first, None):
            if window_start >= end:
                break
            if window_start > position:
                kept.append((position, window_start, content_id))
            position = window_end
        if position < end:
            kept.append((position, end, content_id))
    return kept
