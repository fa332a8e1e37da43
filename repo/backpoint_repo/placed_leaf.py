"""A leaf of a disk map made ready for reading: where each entry begins, and where its chunk lies.

Kept by the hundred, so it is compact: about 50 bytes an entry, 25 KB for a usual leaf of 32 MiB.
Knows nothing of what else is cached, or of disks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from backpoint_repo.format import BLOCK_SIZE, HOLE, ID_SIZE
from backpoint_repo.index_segment import Location
from backpoint_repo.map_node import Leaf

_NOWHERE = -1


class Part(NamedTuple):
    """Bytes [start, end) of entry number `entry` of a leaf; `content_id` is HOLE for zeros."""

    leaf: PlacedLeaf
    entry: int
    content_id: bytes
    start: int
    end: int


class PlacedLeaf:
    """Immutable. All offsets are bytes from the leaf's start."""

    def __init__(self, leaf: Leaf, places: Sequence[Location | None]) -> None:
        """`places`: of each entry's chunk; None for holes and for chunks no index knows."""
        bounds = [start * BLOCK_SIZE for start in leaf.starts_list]
        self._bounds = array("I", [*bounds, leaf.blocks * BLOCK_SIZE])
        self._ids = leaf.ids.tobytes()
        packs = list(dict.fromkeys(place.pack for place in places if place is not None))
        number = {pack: at for at, pack in enumerate(packs)}
        self._packs = packs
        self._pack_numbers = array("i", [number[p.pack] if p else _NOWHERE for p in places])
        self._offsets = array("I", [place.offset if place else 0 for place in places])
        self._lengths = array("I", [place.length if place else 0 for place in places])

    def entry_at(self, offset: int) -> tuple[int, bytes, int, int]:
        """(number, content id, start, end) of the entry that holds a byte."""
        bounds = self._bounds
        entry = bisect_right(bounds, offset) - 1
        content_id = self._ids[entry * ID_SIZE : (entry + 1) * ID_SIZE]
        return entry, content_id, bounds[entry], bounds[entry + 1]

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """Bytes [start, stop), entry by entry."""
        while start < stop:
            entry, content_id, first, last = self.entry_at(start)
            end = min(stop, last)
            yield Part(self, entry, content_id, start - first, end - first)
            start = end

    def stored_length(self, entry: int) -> int:
        """Bytes of an entry's chunk: whole blocks, also at a disk's end."""
        return self._bounds[entry + 1] - self._bounds[entry]

    def place(self, entry: int) -> Location | None:
        """Where the chunk of an entry lies, as far as was known when the leaf was placed."""
        number = self._pack_numbers[entry]
        if number == _NOWHERE:
            return None
        return Location(self._packs[number], self._offsets[entry], self._lengths[entry])


def is_hole(part: Part) -> bool:
    """Whether it reads as zeros without looking."""
    return part.content_id == HOLE
