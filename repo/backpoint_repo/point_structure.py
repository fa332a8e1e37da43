"""Is a point's structure whole: every map node opens, every chunk lies in a pack that is there?

The same question that `check` asks of all points, asked of some, without reading every pack's
directory. Reads no chunk; whether they decode is for whoever reads the disks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backpoint_repo.disk_map import DiskMap
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.exclusions import Exclusions, read_exclusions
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_SIZE
from backpoint_repo.index import Index, ids_of
from backpoint_repo.map_node import Leaf
from backpoint_repo.point import ConfigFile, Disk, Point
from backpoint_repo.repository import Repository

_TOLD_MAX: Final = 20


@dataclass(frozen=True)
class Structure:
    """nodes, chunks: how many were looked at; what hangs in many places of a disk counts once.
    problems: sentences, the first twenty."""

    nodes: int
    chunks: int
    problems: tuple[str, ...]


class StructureProof:
    """For points of one repository as it is now. For one thread."""

    def __init__(self, repository: Repository) -> None:
        """Lists all packs once. Raises what a store raises."""
        repository.index.refresh()
        self._index: Index = repository.index.fork()
        self._index.learn_unlisted_packs()
        self._index.notice_missing_packs()
        # Chunks in trash still read; a collector takes back what a point needs.
        self._index.exclude(Exclusions(damaged=read_exclusions(repository.sealed).damaged))
        self._repository = repository

    def look(self, point: Point) -> Structure:
        """Raises StoreUnavailable."""
        walk = _Walk(self._index)
        for disk in point.disks:
            walk.disk(disk, self._repository)
        for file in point.files:
            walk.file(file)
        return Structure(walk.nodes, walk.chunks, tuple(walk.problems))


class _Walk:
    """One point's tally."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.nodes = 0
        self.chunks = 0
        self.problems: list[str] = []

    def disk(self, disk: Disk, repository: Repository) -> None:
        try:
            disk_map = repository.disk_map(disk)
            for _, level, number in disk_map.nodes(once=True):
                self.nodes += 1
                if level == 0:
                    self._leaf(disk, disk_map, number)
        except (ObjectDamaged, ObjectMissing, UnknownFormat) as error:
            self._tell(f"{disk.key}: its map has a gap: {error}")

    def file(self, file: ConfigFile) -> None:
        if not file.chunks:
            return
        known = self._index.known(ids_of(list(file.chunks)))
        self.chunks += len(known)
        if not known.all():
            self._tell(f"{file.name}: a part of it is in no pack")

    def _leaf(self, disk: Disk, disk_map: DiskMap, number: int) -> None:
        leaf = disk_map.leaf(number)
        for start, end in self._lost(leaf):
            offset, length = number * LEAF_SIZE + start * BLOCK_SIZE, (end - start) * BLOCK_SIZE
            self._tell(f"{disk.key}: bytes {offset} to {offset + length} are in no pack")

    def _lost(self, leaf: Leaf) -> Iterator[tuple[int, int]]:
        known = self._index.known(leaf.ids)
        for at in range(len(leaf.starts_list)):
            start, end, content_id = leaf.entry_at(at)
            self.chunks += content_id != HOLE
            if content_id != HOLE and not known[at]:
                yield start, end

    def _tell(self, problem: str) -> None:
        if len(self.problems) < _TOLD_MAX:
            self.problems.append(problem)
