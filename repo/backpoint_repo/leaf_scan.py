"""One leaf's worth of a source: what to read of it, and what it is once read: spans and chunk ids.

`plan_*` decide from extents alone; `scan_leaf` reads, cuts and hashes, and runs on worker threads.
Knows nothing of what the repository already holds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, NamedTuple

from blake3 import blake3

from backpoint_repo.chunking import HOLE_BLOCKS_MAX, Cutter, Span
from backpoint_repo.disk_map import DiskMap, Geometry
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_BLOCKS, LEAF_SIZE
from backpoint_repo.source.contract import Extent, ImageSource

_JOIN_BLOCKS: Final = HOLE_BLOCKS_MAX
"""Gaps up to 64 KiB are read like data: the cut rule wants short ones, and a call costs more."""


class BlockRange(NamedTuple):
    """Blocks [start, end)."""

    start: int
    end: int


class Window(NamedTuple):
    """Blocks [start, end) of a leaf that are to be cut anew, and where data may lie in them."""

    start: int
    end: int
    data: tuple[BlockRange, ...]


@dataclass(frozen=True)
class LeafPlan:
    """What to read of leaf `number`: windows in order, in blocks relative to the leaf."""

    number: int
    windows: tuple[Window, ...]

    @property
    def read_blocks(self) -> int:
        """Blocks that will be read from the source."""
        return sum(data.end - data.start for window in self.windows for data in window.data)


@dataclass(frozen=True)
class ScannedLeaf:
    """spans: of all windows, in order; ids: of each, HOLE for zeros. buffer: the leaf's bytes."""

    plan: LeafPlan
    spans: list[Span]
    ids: list[bytes]
    buffer: memoryview

    def content(self, index: int) -> memoryview:
        """The plain bytes of span `index`."""
        span = self.spans[index]
        return self.buffer[span.start * BLOCK_SIZE : span.end * BLOCK_SIZE]


def plan_full(geometry: Geometry, extents: Iterable[Extent]) -> Iterator[LeafPlan]:
    """Every leaf that may hold data, cut from border to border. Extents in disk order."""
    for number, ranges in _by_leaf(_data_ranges(extents, geometry)):
        yield LeafPlan(number, (_window_of(0, geometry.leaf_blocks(number), ranges),))


def plan_changed(
    source: ImageSource, parent: DiskMap, changed: Iterable[BlockRange]
) -> Iterator[LeafPlan]:
    """Leaves touched by `changed` (sorted, disjoint), widened to the parent's chunk borders.

    A changed part of a hole is not widened: cuts are free there.
    """
    for number, ranges in parent.at_hand(_by_leaf(changed), itemgetter(0)):
        leaf = parent.leaf(number)
        starts, holes = leaf.starts_list, leaf.holes
        windows: list[BlockRange] = []
        for start, end in ranges:
            first, last = bisect_right(starts, start) - 1, bisect_right(starts, end - 1) - 1
            entry_start = leaf.entry_at(first)[0]
            entry_end = leaf.entry_at(last)[1]
            wide = BlockRange(
                start if holes[first] else entry_start, end if holes[last] else entry_end
            )
            if windows and wide.start <= windows[-1].end:
                windows[-1] = BlockRange(windows[-1].start, max(wide.end, windows[-1].end))
            else:
                windows.append(wide)
        base = number * LEAF_BLOCKS
        yield LeafPlan(
            number, tuple(_window(source, parent.geometry, base, window) for window in windows)
        )


def changed_blocks(extents: Iterable[tuple[int, int]], size: int) -> list[BlockRange]:
    """Byte ranges (offset, length), in any order and overlapping, as sorted disjoint block ranges.

    Parts behind the disk's end are cut off. Trusts no alignment.
    """
    ranges = sorted(
        BlockRange(max(0, offset) // BLOCK_SIZE, -(-min(offset + length, size) // BLOCK_SIZE))
        for offset, length in extents
        if length > 0 and -length < offset < size
    )
    return _joined(ranges)


def scan_leaf(
    source: ImageSource,
    plan: LeafPlan,
    buffer: memoryview,
    cutter: Cutter,
    chunk_id_key: bytes,
) -> ScannedLeaf:
    """Read, cut and hash. `buffer` has 32 MiB and belongs to the result. Raises SourceError."""
    spans: list[Span] = []
    for window in plan.windows:
        for data in window.data:
            _read(source, plan.number, data, buffer)
        spans += cutter.cut(buffer, window.start, window.end, window.data)
    ids = [
        HOLE
        if span.hole
        else blake3(
            buffer[span.start * BLOCK_SIZE : span.end * BLOCK_SIZE], key=chunk_id_key
        ).digest()
        for span in spans
    ]
    return ScannedLeaf(plan, spans, ids, buffer)


def _read(source: ImageSource, leaf: int, data: BlockRange, buffer: memoryview) -> None:
    """Fill the buffer for whole blocks; behind the disk's end they are zero."""
    offset = leaf * LEAF_SIZE + data.start * BLOCK_SIZE
    wanted = (data.end - data.start) * BLOCK_SIZE
    there = min(wanted, source.size - offset)
    start = data.start * BLOCK_SIZE
    source.read_into(offset, buffer[start : start + there])
    if there < wanted:
        buffer[start + there : start + wanted] = bytes(wanted - there)


def _window(source: ImageSource, geometry: Geometry, base: int, blocks: BlockRange) -> Window:
    offset = (base + blocks.start) * BLOCK_SIZE
    end = min((base + blocks.end) * BLOCK_SIZE, geometry.size)
    found = _data_ranges(source.extents(offset, end - offset), geometry)
    ranges = [BlockRange(start - base, end - base) for start, end in found]
    return _window_of(blocks.start, blocks.end, ranges)


def _window_of(start: int, end: int, data: list[BlockRange]) -> Window:
    """Small gaps between data and the window's borders are read too, and so is a small window
    without data: zeros too few for a hole become a chunk, and its bytes must not be leftovers."""
    if not data and end - start <= _JOIN_BLOCKS:
        data = [BlockRange(start, end)]
    if data and data[0].start - start <= _JOIN_BLOCKS:
        data[0] = BlockRange(start, data[0].end)
    if data and end - data[-1].end <= _JOIN_BLOCKS:
        data[-1] = BlockRange(data[-1].start, end)
    return Window(start, end, tuple(data))


def _data_ranges(extents: Iterable[Extent], geometry: Geometry) -> Iterator[BlockRange]:
    """Blocks where data may lie, sorted and disjoint, near ones joined."""
    start = end = 0
    for extent in extents:
        if extent.hole or not extent.length:
            continue
        first = extent.offset // BLOCK_SIZE
        last = -(-(extent.offset + extent.length) // BLOCK_SIZE)
        # Never over a leaf's border: leaves are planned while extents are still coming in.
        if end and first <= end + _JOIN_BLOCKS and first // LEAF_BLOCKS == (end - 1) // LEAF_BLOCKS:
            end = max(end, last)
            continue
        if end:
            yield BlockRange(start, end)
        start, end = first, last
    if end:
        yield BlockRange(start, min(end, geometry.blocks))


def _joined(ranges: Sequence[BlockRange]) -> list[BlockRange]:
    joined: list[BlockRange] = []
    for start, end in ranges:
        if joined and start <= joined[-1].end:
            joined[-1] = BlockRange(joined[-1].start, max(end, joined[-1].end))
        else:
            joined.append(BlockRange(start, end))
    return joined


def _by_leaf(ranges: Iterable[BlockRange]) -> Iterator[tuple[int, list[BlockRange]]]:
    """Split sorted ranges at leaf borders: (leaf number, ranges relative to the leaf)."""
    current, collected = -1, list[BlockRange]()
    for start, end in ranges:
        while start < end:
            leaf = start // LEAF_BLOCKS
            stop = min(end, (leaf + 1) * LEAF_BLOCKS)
            if leaf != current:
                if collected:
                    yield current, collected
                current, collected = leaf, []
            base = leaf * LEAF_BLOCKS
            collected.append(BlockRange(start - base, stop - base))
            start = stop
    if collected:
        yield current, collected
