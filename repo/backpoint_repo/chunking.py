"""Where a leaf's worth of disk is cut into chunks: between 4 KiB blocks, by the blocks' own
content.

There is no rolling hash. The guest's filesystem places files on a 4 KiB grid, so a keyed
fingerprint of each block says whether a chunk begins there; the same file gives the same chunks
wherever a guest put it. Runs of zero blocks become holes. Pure array arithmetic: knows no ids,
sources or stores.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from backpoint_repo.errors import UsageError
from backpoint_repo.format import BLOCK_SIZE, LEAF_BLOCKS

WORDS: Final = BLOCK_SIZE // 8
SAMPLE_STEP: Final = 16
"""Every 16th 64-bit word of a block is fingerprinted: one word in each second cache line."""
SAMPLES: Final = WORDS // SAMPLE_STEP
HOLE_BLOCKS_MAX: Final = 16


@dataclass(frozen=True)
class ChunkParameters:
    """Fixed when a repository is made; all in blocks of 4 KiB.

    A chunk has at least `min_blocks` (unless a hole, a leaf's border or the disk's end cuts it
    short) and at most `max_blocks`. A run of at least `hole_blocks` zero blocks is a hole.
    """

    avg_blocks: int
    min_blocks: int
    max_blocks: int
    hole_blocks: int

    @classmethod
    def with_average(cls, avg_bytes: int) -> ChunkParameters:
        """Average from 16 KiB to 4 MiB, a power of two. Raises UsageError."""
        if avg_bytes & (avg_bytes - 1) or not 16 << 10 <= avg_bytes <= 4 << 20:
            raise UsageError("the chunk average must be a power of two from 16K to 4M")
        average = avg_bytes // BLOCK_SIZE
        return cls(average, max(1, average // 4), average * 4, hole_blocks=4)

    def is_sane(self) -> bool:
        """False for parameters no writer of this version makes; a reader refuses them."""
        return (
            1 <= self.min_blocks < self.avg_blocks < self.max_blocks <= LEAF_BLOCKS
            and 1 <= self.hole_blocks <= HOLE_BLOCKS_MAX
        )


class Span(NamedTuple):
    """A stretch of a leaf: blocks [start, end), either a hole or one chunk."""

    start: int
    end: int
    hole: bool


class Cutter:
    """The cut rule under one repository's key and parameters. Thread-safe."""

    def __init__(self, cut_key: bytes, parameters: ChunkParameters) -> None:
        self._parameters = parameters
        stream = blake3(b"cut multipliers", key=cut_key).digest(length=SAMPLES * 8)
        # Odd multipliers: every sampled bit then reaches the top of the sum.
        self._multipliers: NDArray[np.uint64] = np.frombuffer(stream, "<u8") | np.uint64(1)
        mean = max(1, parameters.avg_blocks - parameters.min_blocks)
        self._threshold = np.uint64((1 << 32) // mean)

    def cut(
        self, buffer: memoryview, start: int, end: int, data: Sequence[tuple[int, int]]
    ) -> list[Span]:
        """Cut blocks [start, end) of a buffer that begins at a leaf's border.

        `data`: sorted disjoint block ranges within it; what lies outside them is zero and is not
        looked at, so a source that reports holes and one that does not give the same spans. Gaps of
        fewer than HOLE_BLOCKS_MAX blocks must be in `data`, as zeros: they may become part of a
        chunk. The spans cover [start, end) in order; two holes are never adjacent.
        """
        zero = np.ones(end - start, np.bool_)
        begins = np.zeros(end - start, np.bool_)
        for first, last in data:
            words = np.frombuffer(buffer[first * BLOCK_SIZE : last * BLOCK_SIZE], "<u8")
            blocks = words.reshape(-1, WORDS)
            prints = (blocks[:, ::SAMPLE_STEP] * self._multipliers).sum(axis=1, dtype=np.uint64)
            part = slice(first - start, last - start)
            zero[part] = _zero_blocks(blocks, prints)
            begins[part] = (prints >> np.uint64(32)) < self._threshold
        candidates: list[int] = (np.flatnonzero(begins & ~zero) + start).tolist()
        spans: list[Span] = []
        position = start
        for hole_start, hole_end in self._holes(zero, start):
            self._cut_run(position, hole_start, candidates, spans)
            spans.append(Span(hole_start, hole_end, hole=True))
            position = hole_end
        self._cut_run(position, end, candidates, spans)
        return spans

    def _holes(self, zero: NDArray[np.bool_], start: int) -> list[tuple[int, int]]:
        """Zero runs long enough to be holes, in blocks of the leaf."""
        least = self._parameters.hole_blocks
        return [(a + start, b + start) for a, b in _runs(zero) if b - a >= least]

    def _cut_run(self, start: int, end: int, candidates: list[int], spans: list[Span]) -> None:
        """Cut the data blocks [start, end) at candidates, within minimum and maximum."""
        least, most = self._parameters.min_blocks, self._parameters.max_blocks
        while start < end:
            limit = min(start + most, end)
            at = bisect_left(candidates, start + least)
            cut = candidates[at] if at < len(candidates) and candidates[at] < limit else limit
            spans.append(Span(start, cut, hole=False))
            start = cut


def _zero_blocks(blocks: NDArray[np.uint64], fingerprints: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which blocks are all zero. Only those with a zero fingerprint are looked at whole."""
    zero: NDArray[np.bool_] = fingerprints == 0
    for start, end in _runs(zero):
        zero[start:end] = ~blocks[start:end].any(axis=1)
    return zero


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    flat: list[int] = edges.tolist()
    return list(zip(flat[::2], flat[1::2], strict=True))
