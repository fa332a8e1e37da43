"""Heals with whatever of a disk is wanted, wherever on it that lies: the whole disk is cut as a
backup would cut it.

Finds chunks that moved, and map nodes: a leaf that is cut the same has the same id, and of a disk
that is wholly the same the inner nodes are made again too. Only wanted ids are stored.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import Final

from backpoint_repo.chunking import Cutter
from backpoint_repo.disk_map import Geometry, NewLeaf, graft
from backpoint_repo.errors import SourceError
from backpoint_repo.format import BLOCK_SIZE, LEAF_SIZE
from backpoint_repo.healing.heal_session import HealSession, trouble_of
from backpoint_repo.healing.wanted import Wanted
from backpoint_repo.leaf_graft import leaf_of_scan
from backpoint_repo.leaf_scan import LeafPlan, ScannedLeaf, plan_full, scan_leaf
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.source.contract import ImageSource

_LEAVES_IN_MEMORY: Final = (os.cpu_count() or 1) + 1
"""32 MiB each."""


class ImageScan:
    """For one thread; leaves are scanned on the session's workers."""

    def __init__(self, wanted: Wanted, session: HealSession, cutter: Cutter, id_key: bytes) -> None:
        self._wanted = wanted
        self._session = session
        self._cutter = cutter
        self._id_key = id_key

    def heal(self, source: ImageSource, progress: PhaseProgress) -> None:
        """Read all of the source, as long as anything is wanted. Raises what storing raises."""
        geometry = Geometry(source.size)
        leaves: dict[int, NewLeaf] = {}
        done = 0
        for scanned in self._scanned(source, geometry):
            progress.advance(scanned.plan.number + 1 - done)
            done = scanned.plan.number + 1
            leaf = leaf_of_scan(scanned, None)
            data = [at for at, span in enumerate(scanned.spans) if not span.hole]
            ids, pieces = [scanned.ids[at] for at in data], [scanned.content(at) for at in data]
            self._session.store_known(self._wanted, ids, pieces)
            if leaf.ids.any():
                node_id = self._session.store_node(self._wanted, leaf.encode())
                leaves[scanned.plan.number] = NewLeaf(node_id, leaf.allocated)
            if not len(self._wanted):
                return
        if leaves and self._wanted.nodes:
            graft(geometry, None, leaves, lambda p: self._session.store_node(self._wanted, p))

    def _scanned(self, source: ImageSource, geometry: Geometry) -> Iterator[ScannedLeaf]:
        """In disk order; what the caller got is overwritten once it asks for the next one. Leaves
        that cannot be read are noted and left out."""
        size = min(LEAF_SIZE, max(1, geometry.blocks) * BLOCK_SIZE)
        free = [memoryview(mmap.mmap(-1, size)) for _ in range(_LEAVES_IN_MEMORY)]
        window: deque[tuple[memoryview, Future[ScannedLeaf]]] = deque()
        plans = plan_full(geometry, source.extents(0, geometry.size))
        try:
            while True:
                while free and (plan := self._next(plans)) is not None:
                    buffer = free.pop()
                    asked = (source, plan, buffer, self._cutter, self._id_key)
                    window.append((buffer, self._session.workers.submit(scan_leaf, *asked)))
                if not window:
                    return
                buffer, scan = window.popleft()
                try:
                    yield scan.result()
                except SourceError as error:
                    self._session.note(trouble_of(error))
                free.append(buffer)
        finally:
            # The caller closes the source; nobody may be reading it then.
            jobs = [scan for _, scan in window]
            for job in jobs:
                job.cancel()
            wait(jobs)

    def _next(self, plans: Iterator[LeafPlan]) -> LeafPlan | None:
        try:
            return next(plans, None)
        except SourceError as error:
            self._session.note(trouble_of(error))
            return None
