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
from operator import attrgetter
from typing import Final

from backpoint_repo.blob_writer import BlobWriter, SealingJobs
from backpoint_repo.chunking import Cutter
from backpoint_repo.disk_map import DiskMap, Geometry, NewLeaf, graft
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_SIZE
from backpoint_repo.leaf_graft import leaf_of_scan
from backpoint_repo.leaf_scan import LeafPlan, ScannedLeaf, scan_leaf
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


@dataclass(frozen=True)
class _Scan:
    """A scanned leaf and its map node's plain bytes, None where all is zero."""

    scanned: ScannedLeaf
    node: bytes | None
    allocated: int


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
        self._scans: deque[Future[_Scan]] = deque()
        self._sealing: deque[tuple[_Scan, SealingJobs]] = deque()
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
            for plan in plans if base is None else base.at_hand(plans, attrgetter("number")):
                if not free:
                    free.append(self._finish_oldest())
                job = self._workers.submit(self._scan, source, plan, free.pop(), base)
                self._scans.append(job)
                self._read += plan.read_blocks * BLOCK_SIZE
                self._start_sealing(wait=False)
            while self._scans or self._sealing:
                free.append(self._finish_oldest())
        finally:
            # The caller closes the source when we fail; nobody may be reading it then.
            for scan in self._scans:
                scan.cancel()
            wait(self._scans)
        root = self._graft(geometry, base)
        self._advance(geometry.size - self._done_to)
        return StoredDisk(root.node_id, root.allocated * BLOCK_SIZE, self._read)

    def _scan(
        self, source: ImageSource, plan: LeafPlan, buffer: memoryview, base: DiskMap | None
    ) -> _Scan:
        """On a worker thread: all that needs neither order nor what is stored already."""
        scanned = scan_leaf(source, plan, buffer, self._cutter, self._chunk_id_key)
        leaf = leaf_of_scan(scanned, base)
        return _Scan(scanned, leaf.encode() if leaf.ids.any() else None, leaf.allocated)

    def _start_sealing(self, *, wait: bool) -> None:
        """Move the oldest leaf on when it is scanned; with `wait`, wait for that.

        One at a time: while packs are sent slowly, all others would wait in memory twice, scanned
        and sealed.
        """
        if self._scans and (wait or (not self._sealing and self._scans[0].done())):
            scan = self._scans.popleft().result()
            jobs = self._writer.start(scan.scanned.ids, scan.scanned.content)
            self._sealing.append((scan, jobs))

    def _finish_oldest(self) -> memoryview:
        """Complete the first leaf in flight; returns its buffer for reuse."""
        if not self._sealing:
            self._start_sealing(wait=True)
        scan, jobs = self._sealing.popleft()
        self._writer.finish(jobs)
        number = scan.scanned.plan.number
        node_id = HOLE if scan.node is None else self._writer.save_node(scan.node)
        self._leaves[number] = NewLeaf(node_id, scan.allocated)
        done = min((number + 1) * LEAF_SIZE, self._size)
        self._advance(done - self._done_to)
        self._done_to = done
        return scan.scanned.buffer

    def _graft(self, geometry: Geometry, base: DiskMap | None) -> NewLeaf:
        if not self._leaves:
            return NewLeaf(base.root, _allocated(base)) if base else NewLeaf(HOLE, 0)
        return graft(geometry, base, self._leaves, self._writer.save_node)


def _allocated(base: DiskMap) -> int:
    """Blocks of a whole map that are not holes, from its root alone."""
    if base.root == HOLE or not base.geometry.leaves:
        return 0
    if base.geometry.height == 0:
        return base.leaf(0).allocated
    return int(base.inner(base.root, base.geometry.height, 0).allocated.sum())


def _buffer(geometry: Geometry) -> memoryview:
    return memoryview(mmap.mmap(-1, min(LEAF_SIZE, max(1, geometry.blocks) * BLOCK_SIZE)))
