"""Reads at any offset of a stored disk: map -> chunks -> bytes, through the chunk cache.

`read_cached` answers only from memory and never waits, so an event loop may call it; `read` and
`prefetch` fetch what is missing and belong on worker threads. Holes are zeros that cost nothing.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import ChunkReader, WantedChunk
from backpoint_repo.disk_map import DiskMap
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_SIZE
from backpoint_repo.index_segment import Location
from backpoint_repo.map_node import Leaf

_LEAVES_KEPT: Final = 256
"""Leaves of 32 MiB kept decoded per disk: about 150 KB each, with the places of their chunks."""
_ZEROS: Final = memoryview(bytes(4 << 20))


class Stretch(NamedTuple):
    """Bytes [offset, offset + length) of a disk; data: a chunk holds them, else they are zero."""

    offset: int
    length: int
    data: bool


@dataclass(frozen=True)
class _PlacedLeaf:
    """A leaf with byte offsets (from the leaf's start) and the places of its chunks.

    bounds: where each entry begins, and last where the leaf ends.
    """

    bounds: list[int]
    ids: list[bytes]
    places: list[Location | None]


class _Part(NamedTuple):
    """Bytes [start, end) of one chunk, or of a hole where `entry` is None."""

    leaf: _PlacedLeaf
    entry: int | None
    start: int
    end: int


class ImageReader:
    """One disk of one point. Thread-safe."""

    def __init__(self, disk_map: DiskMap, chunks: ChunkReader, cache: ChunkCache) -> None:
        self.size = disk_map.geometry.size
        self._map = disk_map
        self._chunks = chunks
        self._cache = cache
        self._lock = threading.Lock()
        self._leaves: OrderedDict[int, _PlacedLeaf] = OrderedDict()

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None:
        """Like `read`, or None where anything would have to be fetched or decoded."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        number = offset // LEAF_SIZE
        leaf = self._leaves.get(number)
        if leaf is None:
            return None
        start = offset - number * LEAF_SIZE
        entry = bisect_right(leaf.bounds, start) - 1
        if start + length <= leaf.bounds[entry + 1]:
            return self._one_cached(leaf, entry, start - leaf.bounds[entry], length)
        parts = list(self._parts_if_placed(offset, length))
        found = [None if part is None else self._part_cached(part) for part in parts]
        pieces = [piece for piece in found if piece is not None]
        return b"".join(pieces) if len(pieces) == len(parts) else None

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Up to `length` bytes; fewer at the disk's end, none behind it.

        Raises OwnerKeyNeeded, ObjectMissing, ObjectDamaged, StoreUnavailable.
        """
        parts = list(self._parts(offset, min(length, self.size - offset)))
        contents = self._contents([part for part in parts if part.entry is not None])
        pieces = [
            _zeros(part.end - part.start)
            if part.entry is None
            else memoryview(contents[part.leaf.ids[part.entry]])[part.start : part.end]
            for part in parts
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, offset: int, length: int) -> None:
        """Bring the chunks of a range into the cache. Raises as `read`."""
        parts = self._parts(offset, min(length, self.size - offset))
        self._contents([part for part in parts if part.entry is not None])

    def stretches(self, offset: int, length: int) -> Iterator[Stretch]:
        """What of a range is data, in order; neighbours of one kind are joined."""
        current: Stretch | None = None
        for at, size, data in self._kinds(offset, min(length, self.size - offset)):
            if current is not None and current.data == data:
                current = current._replace(length=current.length + size)
                continue
            if current is not None:
                yield current
            current = Stretch(at, size, data)
        if current is not None:
            yield current

    def _kinds(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        for part in self._parts(offset, length):
            size = part.end - part.start
            yield offset, size, part.entry is not None
            offset += size

    def _parts(self, offset: int, length: int) -> Iterator[_Part]:
        end = offset + length
        while offset < end:
            number = offset // LEAF_SIZE
            base = number * LEAF_SIZE
            stop = min(end, base + LEAF_SIZE)
            yield from _parts_of_leaf(self._leaf(number), offset - base, stop - base)
            offset = stop

    def _parts_if_placed(self, offset: int, length: int) -> Iterator[_Part | None]:
        """As `_parts`, with None for leaves that are not in memory."""
        end = offset + length
        while offset < end:
            number = offset // LEAF_SIZE
            base = number * LEAF_SIZE
            stop = min(end, base + LEAF_SIZE)
            leaf = self._leaves.get(number)
            if leaf is None:
                yield None
            else:
                yield from _parts_of_leaf(leaf, offset - base, stop - base)
            offset = stop

    def _one_cached(
        self, leaf: _PlacedLeaf, entry: int, start: int, length: int
    ) -> memoryview | None:
        """The commonest case, made short: a read inside one chunk or hole."""
        content_id = leaf.ids[entry]
        if content_id == HOLE:
            return _zeros(length)
        plain = self._cache.get(content_id)
        return None if plain is None else memoryview(plain)[start : start + length]

    def _part_cached(self, part: _Part) -> memoryview | None:
        if part.entry is None:
            return _zeros(part.end - part.start)
        return self._one_cached(part.leaf, part.entry, part.start, part.end - part.start)

    def _contents(self, parts: list[_Part]) -> dict[bytes, bytes]:
        """Plain content by id."""
        wanted: dict[bytes, WantedChunk] = {}
        for leaf, entry, _, _ in parts:
            assert entry is not None
            length = _stored_length(leaf, entry)
            wanted[leaf.ids[entry]] = WantedChunk(leaf.ids[entry], length, leaf.places[entry])
        ids, chunks = list(wanted), list(wanted.values())
        contents = self._cache.get_all(
            ids, lambda missing: self._chunks.read([chunks[at] for at in missing])
        )
        return dict(zip(ids, contents, strict=True))

    def _leaf(self, number: int) -> _PlacedLeaf:
        leaf = self._leaves.get(number)
        if leaf is None:
            leaf = self._place(self._map.leaf(number))
            with self._lock:
                self._leaves[number] = leaf
                while len(self._leaves) > _LEAVES_KEPT:
                    self._leaves.popitem(last=False)
        return leaf

    def _place(self, leaf: Leaf) -> _PlacedLeaf:
        bounds = [start * BLOCK_SIZE for start in leaf.starts_list]
        bounds.append(leaf.blocks * BLOCK_SIZE)
        ids = [row.tobytes() for row in leaf.ids]
        return _PlacedLeaf(bounds, ids, self._chunks.locate(ids))


def _parts_of_leaf(leaf: _PlacedLeaf, start: int, stop: int) -> Iterator[_Part]:
    entry = bisect_right(leaf.bounds, start) - 1
    while start < stop:
        first, last = leaf.bounds[entry], leaf.bounds[entry + 1]
        end = min(stop, last)
        hole = leaf.ids[entry] == HOLE
        yield _Part(leaf, None if hole else entry, start - first, end - first)
        start = end
        entry += 1


def _stored_length(leaf: _PlacedLeaf, entry: int) -> int:
    """Chunks are whole blocks, also at a disk's end."""
    return leaf.bounds[entry + 1] - leaf.bounds[entry]


def _zeros(length: int) -> memoryview:
    return _ZEROS[:length] if length <= len(_ZEROS) else memoryview(bytes(length))
