"""Makes lost map nodes again as an incremental backup made them: from a map that is known, and what
the source shows differently.

Increments cut only around what changed, so their leaves can differ from those of a whole cut, and
with them every node above. Decides on which maps it is tried: those of disks of the source's size,
the newest first, and few of them, because each costs a reading of what is wanted. A node is stored
only if its id is wanted.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from backpoint_repo.chunking import Cutter
from backpoint_repo.disk_map import DiskMap, NewLeaf, graft
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    SourceError,
    UnknownFormat,
)
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_BLOCKS, LEAF_SIZE
from backpoint_repo.healing.heal_session import HealSession, trouble_of
from backpoint_repo.healing.wanted import Wanted
from backpoint_repo.leaf_graft import leaf_of_scan
from backpoint_repo.leaf_scan import BlockRange, plan_changed, scan_leaf
from backpoint_repo.map_node import Leaf
from backpoint_repo.repository import Repository
from backpoint_repo.source.contract import ImageSource

_FOR_LEAVES: Final = 8
_FOR_ALL: Final = 2
"""Maps that it is tried on: where only lost leaves are read, and where all of the source is."""


class MapAgain:
    """For one thread."""

    def __init__(self, repository: Repository, wanted: Wanted, session: HealSession) -> None:
        self._repository = repository
        self._wanted = wanted
        self._session = session
        keyring = repository.sealed.keyring
        self._id_key = keyring.chunk_id_key
        self._cutter = Cutter(keyring.cut_key, repository.config.chunks)

    def heal_leaves(self, source: ImageSource) -> None:
        """Lost leaves, read where they lay. Raises what storing raises."""
        for base in self._bases(source.size, _FOR_LEAVES):
            places = self._wanted.places(levels=(0, 0))
            numbers = np.unique(places["offset"] // LEAF_SIZE).tolist()
            self._new_leaves(source, base, [n for n in numbers if n < base.geometry.leaves])

    def heal_all(self, source: ImageSource) -> None:
        """Inner nodes too: reads all of the source for each map. Raises what storing raises."""
        for base in self._bases(source.size, _FOR_ALL):
            if not len(self._wanted.places(levels=(1, 127))):
                return
            leaves = self._new_leaves(source, base, range(base.geometry.leaves))
            if not leaves:
                continue  # not all could be looked at, or there is nothing that the map has not
            try:
                graft(base.geometry, base, leaves, self._store)
            except (ObjectMissing, ObjectDamaged, UnknownFormat):
                continue  # this map has gaps itself

    def _bases(self, size: int, most: int) -> Iterator[DiskMap]:
        """Maps of disks of this size, each root once, while nodes are wanted."""
        lacking = {image.vm for image in self._wanted.images}
        points = sorted(
            self._repository.catalog.refresh(), key=lambda p: (p.vm not in lacking, -p.time)
        )
        seen: set[bytes] = set()
        for summary in points:
            if not self._wanted.nodes or len(seen) >= most:
                return
            try:
                point = self._repository.point(summary.point_id)
            except RepositoryError as error:
                self._session.note(trouble_of(error))
                continue
            for disk in point.disks:
                if disk.size == size > 0 and disk.root not in seen:
                    seen.add(disk.root)
                    yield self._repository.disk_map(disk)

    def _new_leaves(
        self, source: ImageSource, base: DiskMap, numbers: Iterable[int]
    ) -> dict[int, NewLeaf] | None:
        """Leaves of the source that differ from the map; None where not all could be looked at."""
        leaves: dict[int, NewLeaf] | None = {}
        for number in numbers:
            try:
                found = self._new_leaf(source, base, number)
            except (ObjectMissing, ObjectDamaged, UnknownFormat):
                leaves = None
                continue
            except SourceError as error:
                self._session.note(trouble_of(error))
                leaves = None
                continue
            if leaves is not None and found is not None:
                leaves[number] = found
        return leaves

    def _new_leaf(self, source: ImageSource, base: DiskMap, number: int) -> NewLeaf | None:
        buffer = memoryview(mmap.mmap(-1, LEAF_SIZE))  # zeros that cost nothing until written to
        changed = self._changed(source, base.leaf(number), number, buffer)
        for plan in plan_changed(source, base, changed):
            scanned = scan_leaf(source, plan, buffer, self._cutter, self._id_key)
            leaf = leaf_of_scan(scanned, base)
            node_id = self._store(leaf.encode()) if leaf.ids.any() else HOLE
            return NewLeaf(node_id, leaf.allocated)
        return None

    def _changed(
        self, source: ImageSource, leaf: Leaf, number: int, buffer: memoryview
    ) -> list[BlockRange]:
        """Entries of a leaf that hold something else in the source, in blocks of the disk.

        buffer: zeros.
        """
        data = self._read(source, number, buffer)
        changed = []
        for at in range(len(leaf.starts_list)):
            start, stop, content_id = leaf.entry_at(at)
            same = content_id == HOLE
            if data[start:stop].any():
                content = buffer[start * BLOCK_SIZE : stop * BLOCK_SIZE]
                same = self._is(content_id, content)
            if not same:
                first = number * LEAF_BLOCKS
                changed.append(BlockRange(first + start, first + stop))
        return changed

    def _read(self, source: ImageSource, number: int, buffer: memoryview) -> NDArray[np.bool_]:
        """Fill in what is not zero of a leaf; which of its blocks may hold something."""
        offset = number * LEAF_SIZE
        data = np.zeros(LEAF_BLOCKS, np.bool_)
        for extent in source.extents(offset, min(LEAF_SIZE, source.size - offset)):
            if not extent.hole:
                start = extent.offset - offset
                end = start + extent.length
                source.read_into(extent.offset, buffer[start:end])
                data[start // BLOCK_SIZE : -(-end // BLOCK_SIZE)] = True
        return data

    def _is(self, content_id: bytes, content: memoryview) -> bool:
        if content_id == HOLE:
            return not np.frombuffer(content, np.uint64).any()
        return blake3(content, key=self._id_key).digest() == content_id

    def _store(self, plain: bytes) -> bytes:
        return self._session.store_node(self._wanted, plain)
