"""Reads at any offset of a stored disk: map -> chunks -> bytes, through the chunk cache.

`read_cached` answers only from memory and never waits, so an event loop may call it; `read` and
`prefetch` fetch what is missing and belong on worker threads. Holes are zeros that cost nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import ChunkReader, WantedChunk
from backpoint_repo.disk_map import DiskMap
from backpoint_repo.format import HOLE, LEAF_SIZE
from backpoint_repo.placed_leaf import Part, PlacedLeaf, is_hole

_LEAVES_KEPT: Final = 256
"""Leaves of 32 MiB kept at hand per disk: 8 GiB of it, in about 6 MB."""
_LEAVES_BROUGHT: Final = 16
"""Leaves that a reader who goes on and on has brought at once: one request for 512 MiB of disk."""
_ZEROS: Final = memoryview(bytes(4 << 20))


class Stretch(NamedTuple):
    """Bytes [offset, offset + length) of a disk; data: a chunk holds them, else they are zero."""

    offset: int
    length: int
    data: bool


class ImageReader:
    """One disk of one point. Thread-safe."""

    def __init__(self, disk_map: DiskMap, chunks: ChunkReader, cache: ChunkCache) -> None:
        self.size = disk_map.geometry.size
        self._map = disk_map
        self._chunks = chunks
        self._cache = cache
        self._lock = threading.Lock()
        self._leaves: OrderedDict[int, PlacedLeaf] = OrderedDict()

    @property
    def lanes(self) -> int:
        """Requests at once that pay off where the disk is stored."""
        return self._chunks.lanes

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
        _, content_id, first, last = leaf.entry_at(start)
        if start + length <= last:
            return self._chunk_cached(content_id, start - first, length)
        parts = list(self._parts_if_placed(offset, length))
        pieces = [piece for part in parts if (piece := self._part_cached(part)) is not None]
        return b"".join(pieces) if len(pieces) == len(parts) else None

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Up to `length` bytes; fewer at the disk's end, none behind it.

        Raises OwnerKeyNeeded, ObjectMissing, ObjectDamaged, StoreUnavailable.
        """
        parts = list(self._parts(offset, min(length, self.size - offset)))
        contents = self._contents(parts)
        pieces = [
            _zeros(part.end - part.start)
            if is_hole(part)
            else memoryview(contents[part.content_id])[part.start : part.end]
            for part in parts
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, offset: int, length: int) -> None:
        """Bring the chunks of a range into the cache. Raises as `read`."""
        self.expect(offset, length)
        self.prefetch_all([(offset, length)])

    def expect(self, offset: int, length: int) -> None:
        """Have the map of a range, and of some of what follows it, at hand, where requests wait for
        a network. Raises as `read`."""
        if self.lanes == 1:
            return
        first, end = offset // LEAF_SIZE, -(-(offset + length) // LEAF_SIZE)
        if any(number not in self._leaves for number in range(first, end)):
            first -= first % _LEAVES_BROUGHT
            self._map.bring(first, max(end, first + _LEAVES_BROUGHT))

    def prefetch_all(self, ranges: Iterable[tuple[int, int]]) -> None:
        """As `prefetch`, of several (offset, length) at once: what is scattered over the disk and
        was stored together is fetched together."""
        parts = [
            part
            for offset, length in ranges
            for part in self._parts(offset, min(length, self.size - offset))
        ]
        self._contents(parts)

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
            yield offset, size, not is_hole(part)
            offset += size

    def _parts(self, offset: int, length: int) -> Iterator[Part]:
        end = offset + length
        while offset < end:
            number = offset // LEAF_SIZE
            base = number * LEAF_SIZE
            stop = min(end, base + LEAF_SIZE)
            yield from self._leaf(number).parts(offset - base, stop - base)
            offset = stop

    def _parts_if_placed(self, offset: int, length: int) -> Iterator[Part | None]:
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
                yield from leaf.parts(offset - base, stop - base)
            offset = stop

    def _chunk_cached(self, content_id: bytes, start: int, length: int) -> memoryview | None:
        if content_id == HOLE:
            return _zeros(length)
        plain = self._cache.get(content_id)
        return None if plain is None else memoryview(plain)[start : start + length]

    def _part_cached(self, part: Part | None) -> memoryview | None:
        if part is None:
            return None
        return self._chunk_cached(part.content_id, part.start, part.end - part.start)

    def _contents(self, parts: list[Part]) -> dict[bytes, bytes]:
        """Plain content by id, of all parts that are no holes."""
        wanted = {part.content_id: part for part in parts if not is_hole(part)}
        ids = list(wanted)

        def fetch(missing: list[int]) -> list[bytes]:
            return self._chunks.read([_wanted_chunk(wanted[ids[at]]) for at in missing])

        return dict(zip(ids, self._cache.get_all(ids, fetch), strict=True))

    def _leaf(self, number: int) -> PlacedLeaf:
        leaf = self._leaves.get(number)
        if leaf is None:
            found = self._map.leaf(number)
            leaf = PlacedLeaf(found, self._chunks.locate([row.tobytes() for row in found.ids]))
            with self._lock:
                self._leaves[number] = leaf
                while len(self._leaves) > _LEAVES_KEPT:
                    self._leaves.popitem(last=False)
        return leaf


def _wanted_chunk(part: Part) -> WantedChunk:
    leaf = part.leaf
    return WantedChunk(part.content_id, leaf.stored_length(part.entry), leaf.place(part.entry))


def _zeros(length: int) -> memoryview:
    return _ZEROS[:length] if length <= len(_ZEROS) else memoryview(bytes(length))
