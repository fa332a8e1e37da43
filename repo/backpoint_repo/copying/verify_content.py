"""The plain content of two points, compared byte by byte: for copies whose keys differ.

Both may be cut into other chunks, and a hole in one may be zeros in the other: what counts is what
a guest would read. Ranges that are holes in both are not read. Needs both owners' keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import ChunkReader
from backpoint_repo.disk_map import DiskMap
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import LEAF_SIZE
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.in_threads import in_threads
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.point import Disk, Point
from backpoint_repo.repository import Repository

_PIECE: Final = 4 << 20
"""Bytes of both that are in memory together, for each thread."""
_THREADS_MAX: Final = 4
_CACHE_BYTES: Final = 16 << 20
_FAULTS: Final = (ObjectMissing, ObjectDamaged, UnknownFormat)


@dataclass(frozen=True)
class Pair:
    """A point and its copy."""

    original: Point
    copied: Point


class ContentComparison:
    """Of points of two repositories, each read from its store anew."""

    def __init__(self, source: Repository, target: Repository) -> None:
        self._source, self._target = source, target
        lanes = max(source.sealed.store.lanes, target.sealed.store.lanes)
        self._threads = max(2, min(lanes, _THREADS_MAX))

    def problems(
        self, pair: Pair, progress: PhaseProgress, beside: Pair | None = None
    ) -> Iterator[str]:
        """A sentence for each place that differs or cannot be read. Raises StoreUnavailable.

        beside: what is equal already: leaves that both points share with it are not read.
        """
        original, copied = pair.original, pair.copied
        for repository in (self._source, self._target):
            repository.index.refresh()
        for disk, copy in zip(original.disks, copied.disks, strict=False):
            progress.phase(f"verifying {disk.key}", disk.size)
            yield from self._disk(disk, copy, progress.advance, beside)
        for file, twin in zip(original.files, copied.files, strict=False):
            try:
                if self._source.read_file(file) != self._target.read_file(twin):
                    yield f"file {file.name} differs"
            except _FAULTS as error:
                yield f"file {file.name}: {error}"

    def _disk(
        self, disk: Disk, copy: Disk, advance: Callable[[int], None], beside: Pair | None
    ) -> Iterator[str]:
        one = _Side(self._source, disk, beside.original if beside else None)
        other = _Side(self._target, copy, beside.copied if beside else None)
        size = min(disk.size, copy.size)
        jobs = (
            partial(_compared, one, other, start, min(LEAF_SIZE, size - start))
            for start in range(0, size, LEAF_SIZE)
        )
        with closing(in_threads(jobs, threads=self._threads)) as done:
            for problem, length in done:
                advance(length)
                if problem:
                    yield f"disk {disk.key}: {problem}"


class _Side:
    """A disk, read past whatever the repository has in memory. Thread-safe."""

    def __init__(self, repository: Repository, disk: Disk, beside: Point | None) -> None:
        """beside: another point of the same repository."""
        nodes = NodeReader(repository.sealed, repository.index)
        chunks = ChunkReader(repository.sealed, repository.index)
        self._map = DiskMap(disk.size, disk.root, nodes.load, nodes.bring)
        self._beside = None
        for found in beside.disks if beside else ():
            if (found.key, found.size) == (disk.key, disk.size):
                self._beside = DiskMap(found.size, found.root, nodes.load, nodes.bring)
        self.reader = ImageReader(self._map, chunks, ChunkCache(_CACHE_BYTES))

    def shares(self, leaf: int) -> bool:
        """Whether the other point has the very same leaf. What is gone of it is not shared."""
        if self._beside is None:
            return False
        try:
            return self._beside.leaf_id(leaf) == self._map.leaf_id(leaf)
        except _FAULTS:
            return False

    def data(self, offset: int, length: int) -> list[tuple[int, int]]:
        """(start, end) of what is no hole."""
        found = self.reader.stretches(offset, length)
        return [(one.offset, one.offset + one.length) for one in found if one.data]


def _compared(one: _Side, other: _Side, start: int, length: int) -> tuple[str, int]:
    """What is wrong with a part of a disk, or nothing; and its length."""
    try:
        if one.shares(start // LEAF_SIZE) and other.shares(start // LEAF_SIZE):
            return "", length
        for at, end in _joined(one.data(start, length) + other.data(start, length)):
            for piece in range(at, end, _PIECE):
                size = min(_PIECE, end - piece)
                if one.reader.read(piece, size) != other.reader.read(piece, size):
                    return f"differs between {piece} and {piece + size}", length
    except _FAULTS as error:
        return f"between {start} and {start + length}: {error}", length
    return "", length


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """In order, none touching the next."""
    begin = stop = -1
    for start, end in sorted(ranges):
        if start > stop:
            if stop > begin:
                yield begin, stop
            begin = start
        stop = max(stop, end)
    if stop > begin:
        yield begin, stop
