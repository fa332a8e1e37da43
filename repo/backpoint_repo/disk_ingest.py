"""One disk into the repository: scan leaves on all cores, store what is new in disk order, graft
the map.

Decides the pipeline: how many leaves are in memory, and that blobs are appended in disk order so
that a sequential read of the disk is a sequential read of packs. What to read is planned in
`leaf_scan.py`.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import Final

from backpoint_repo.blob_writer import BlobWriter, SealingJobs
from backpoint_repo.chunking import Cutter
from backpoint_repo.disk_map import DiskMap, Geometry, NewLeaf, graft
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_SIZE
from backpoint_repo.leaf_scan import LeafPlan, ScannedLeaf, scan_leaf
from backpoint_repo.map_node import Leaf, leaf_of
from backpoint_repo.source.contract import ImageSource

LEAVES_IN_MEMORY: Final = (os.cpu_count() or 1) + 1
"""One being scanned on each core and one being sealed; 32 MiB each, allocated once and used again,
because the first touch of memory costs more than hashing it."""

Advance = Callable[[int], None]
"""Called with the number of disk bytes dealt with since the last call."""


@dataclass(frozen=True)
class StoredDisk:
    """root: id of the map's root; allocated: bytes not hole; read: bytes read from the source."""

    root: bytes
    allocated: int
    read: int


class DiskIngest:
    """Stores one disk. For one thread; scanning and sealing run on `workers`."""

    def __init__(
        self,
        writer: BlobWriter,
        cutter: Cutter,
        chunk_id_key: bytes,
        workers: Executor,
        advance: Advance,
    ) -> None:
        self._writer = writer
        self._cutter = cutter
        self._chunk_id_key = chunk_id_key
        self._workers = workers
        self._advance = advance
        self._scans: deque[Future[ScannedLeaf]] = deque()
        self._sealing: deque[tuple[ScannedLeaf, SealingJobs]] = deque()
        self._leaves: dict[int, NewLeaf] = {}
        self._read = 0
        self._done_to = 0
        self._size = 0

    def run(
        self,
        source: ImageSource,
        geometry: Geometry,
        base: DiskMap | None,
        plans: Iterable[LeafPlan],
    ) -> StoredDisk:
        """Store the planned leaves and graft them onto `base` (None: onto zeros).

        Raises SourceError and what a store raises; then nothing of the disk is referred to.
        """
        self._size = geometry.size
        free = [_buffer(geometry) for _ in range(LEAVES_IN_MEMORY)]
        try:
            for plan in plans:
                if not free:
                    free.append(self._finish_oldest(base))
                job = (source, plan, free.pop(), self._cutter, self._chunk_id_key)
                self._scans.append(self._workers.submit(scan_leaf, *job))
                self._read += plan.read_blocks * BLOCK_SIZE
                self._start_sealing(wait=False)
            while self._scans or self._sealing:
                free.append(self._finish_oldest(base))
        finally:
            # The caller closes the source when we fail; nobody may be reading it then.
            for scan in self._scans:
                scan.cancel()
            wait(self._scans)
        root = self._graft(geometry, base)
        self._advance(geometry.size - self._done_to)
        return StoredDisk(root.node_id, root.allocated * BLOCK_SIZE, self._read)

    def _start_sealing(self, *, wait: bool) -> None:
        """Move scanned leaves on, in disk order; with `wait`, at least one."""
        while self._scans and (wait or self._scans[0].done()):
            scanned = self._scans.popleft().result()
            chunks = [
                (content_id, scanned.content(at))
                for at, content_id in enumerate(scanned.ids)
                if content_id != HOLE
            ]
            self._sealing.append((scanned, self._writer.start(chunks)))
            wait = False

    def _finish_oldest(self, base: DiskMap | None) -> memoryview:
        """Complete the first leaf in flight; returns its buffer for reuse."""
        if not self._sealing:
            self._start_sealing(wait=True)
        scanned, jobs = self._sealing.popleft()
        self._writer.finish(jobs)
        number = scanned.plan.number
        self._leaves[number] = self._save_leaf(scanned, base)
        done = min((number + 1) * LEAF_SIZE, self._size)
        self._advance(done - self._done_to)
        self._done_to = done
        return scanned.buffer

    def _save_leaf(self, scanned: ScannedLeaf, base: DiskMap | None) -> NewLeaf:
        leaf = _leaf_of_scan(scanned, base)
        if not leaf.ids.any():
            return NewLeaf(HOLE, 0)
        return NewLeaf(self._writer.save_node(leaf.encode()), leaf.allocated)

    def _graft(self, geometry: Geometry, base: DiskMap | None) -> NewLeaf:
        if not self._leaves:
            return NewLeaf(base.root, _allocated(base)) if base else NewLeaf(HOLE, 0)
        return graft(geometry, base, self._leaves, self._writer.save_node)


def _leaf_of_scan(scanned: ScannedLeaf, base: DiskMap | None) -> Leaf:
    """The whole leaf: scanned windows, and between them what the base has."""
    plan = scanned.plan
    starts: list[int] = []
    ids: list[bytes] = []

    def add(start: int, content_id: bytes) -> None:
        if not (content_id == HOLE and ids and ids[-1] == HOLE):
            starts.append(start)
            ids.append(content_id)

    old = base.leaf(plan.number) if base is not None else None
    blocks = old.blocks if old is not None else plan.windows[-1].end
    old_entries = [old.entry_at(at) for at in range(len(old.starts_list))] if old else []
    new_entries = [
        (span.start, span.end, content_id)
        for span, content_id in zip(scanned.spans, scanned.ids, strict=True)
    ]
    kept = _outside(old_entries, [(window.start, window.end) for window in plan.windows])
    for start, _, content_id in sorted(kept + new_entries):
        add(start, content_id)
    return leaf_of(starts, ids, blocks)


def _outside(
    entries: list[tuple[int, int, bytes]], windows: list[tuple[int, int]]
) -> list[tuple[int, int, bytes]]:
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


def _allocated(base: DiskMap) -> int:
    """Blocks of a whole map that are not holes, from its root alone."""
    if base.root == HOLE or not base.geometry.leaves:
        return 0
    if base.geometry.height == 0:
        return base.leaf(0).allocated
    return int(base.inner(base.root, base.geometry.height, 0).allocated.sum())


def _buffer(geometry: Geometry) -> memoryview:
    return memoryview(mmap.mmap(-1, min(LEAF_SIZE, max(1, geometry.blocks) * BLOCK_SIZE)))
