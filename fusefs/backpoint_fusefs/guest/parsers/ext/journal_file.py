"""The journal's blocks by their number: where each lies on the volume, and what it holds.

Decides only how much is read at once. Knows nothing of what the blocks mean.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.run import Run

_READ_AT_ONCE = 64 << 10


class JournalFile:
    """runs: of the journal's inode, which must not have holes."""

    def __init__(self, blocks: Blocks, runs: Sequence[Run]) -> None:
        self._blocks = blocks
        self._runs = runs
        self._starts = [run.logical for run in runs]
        self._at_once = max(1, _READ_AT_ONCE // blocks.size)
        # A log of short transactions is read block by block: with this, one read per 64 KiB.
        self._piece = lru_cache(4)(blocks.read)
        self.block_size = blocks.size

    def read(self, number: int) -> bytes:
        """Raises GuestDamaged."""
        run = self._run(number)
        piece = number - number % self._at_once
        first = max(run.logical, piece)
        end = min(run.logical + run.blocks, piece + self._at_once)
        raw = self._piece(run.physical + first - run.logical, end - first)
        at = (number - first) * self.block_size
        return raw[at : at + self.block_size]

    def offset(self, number: int) -> int:
        """The block's first byte on the volume. Raises GuestDamaged."""
        run = self._run(number)
        return (run.physical + number - run.logical) * self.block_size

    def _run(self, number: int) -> Run:
        at = bisect_right(self._starts, number) - 1
        if at < 0 or number >= self._runs[at].logical + self._runs[at].blocks:
            raise GuestDamaged(f"it has no block {number}")
        return self._runs[at]
