"""Comparing parts of a source with what the repository holds, by chunk ids: needs no owner's key.

Decides which of a map's entries a sample touches and whether the source still has their content.
Whoever asks decides the sample, and what a difference means.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from blake3 import blake3

from backpoint_repo.disk_map import DiskMap
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_BLOCKS
from backpoint_repo.leaf_scan import BlockRange, changed_blocks
from backpoint_repo.source.contract import ImageSource


class Audit(NamedTuple):
    """read: bytes read of the source. different: (offset, length) in bytes of chunks, or parts of
    holes, whose content is no longer what the map says."""

    read: int
    different: tuple[tuple[int, int], ...]


class _Entry(NamedTuple):
    """Blocks [start, end) of the disk with one content; HOLE for zeros."""

    start: int
    end: int
    content: bytes


def audit_disk(
    source: ImageSource,
    base: DiskMap,
    sample: Iterable[tuple[int, int]],
    changed: Sequence[tuple[int, int]],
    chunk_id_key: bytes,
) -> Audit:
    """Compare all chunks that `sample` touches and `changed` does not; both (offset, length).

    Of a hole only the sampled part that did not change is read. Raises SourceError, and
    ObjectDamaged or ObjectMissing where the map cannot be read.
    """
    size = base.geometry.size
    known = changed_blocks(changed, size)
    read, different = 0, list[tuple[int, int]]()
    for entry in _unchanged(_entries(base, changed_blocks(sample, size)), known):
        start = entry.start * BLOCK_SIZE
        buffer = bytearray((entry.end - entry.start) * BLOCK_SIZE)
        there = min(len(buffer), size - start)
        source.read_into(start, memoryview(buffer)[:there])
        read += there
        if not _is(buffer, entry.content, chunk_id_key):
            different.append((start, there))
    return Audit(read, tuple(different))


def _entries(base: DiskMap, sample: Iterable[BlockRange]) -> Iterator[_Entry]:
    """Each entry once, however many sampled ranges touch it; holes cut to the sample."""
    last = -1
    for start, end in sample:
        at = start
        while at < end:
            number = at // LEAF_BLOCKS
            first = number * LEAF_BLOCKS
            leaf = base.leaf(number)
            index = bisect_right(leaf.starts_list, at - first) - 1
            entry_start, entry_end, content = leaf.entry_at(index)
            entry_start, entry_end = entry_start + first, entry_end + first
            if content == HOLE:
                yield _Entry(at, min(end, entry_end), HOLE)
            elif entry_start > last:
                yield _Entry(entry_start, entry_end, content)
                last = entry_start
            at = entry_end


def _unchanged(entries: Iterable[_Entry], known: Sequence[BlockRange]) -> Iterator[_Entry]:
    """What the known changes leave to compare: a chunk whole or not at all, of a hole the rest."""
    for entry in entries:
        touching = _touching(known, entry)
        if not touching:
            yield entry
        elif entry.content == HOLE:
            yield from _without(entry, touching)


def _touching(known: Sequence[BlockRange], entry: _Entry) -> Sequence[BlockRange]:
    first = bisect_right(known, entry.start, key=lambda blocks: blocks.end)
    beyond = bisect_left(known, entry.end, key=lambda blocks: blocks.start)
    return known[first:beyond]


def _without(hole: _Entry, touching: Iterable[BlockRange]) -> Iterator[_Entry]:
    at = hole.start
    for start, end in touching:
        if at < start:
            yield _Entry(at, start, HOLE)
        at = max(at, end)
    if at < hole.end:
        yield _Entry(at, hole.end, HOLE)


def _is(content: bytearray, expected: bytes, chunk_id_key: bytes) -> bool:
    if expected == HOLE:
        return content == bytes(len(content))
    return blake3(content, key=chunk_id_key).digest() == expected
