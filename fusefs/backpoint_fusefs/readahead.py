"""Who reads a file from front to back, and what to decode for them before they ask.

Decides how far ahead, and in what pieces. The detector is pure: reads in, ranges to fetch out. A
reader that jumps about costs nothing extra. How ranges are fetched is for `open_file.py`.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Depth(NamedTuple):
    """window: bytes fetched at once. ahead: bytes decoded before they are asked for, at most."""

    window: int
    ahead: int


NEAR: Final = Depth(1 << 20, 8 << 20)
"""A dozen chunks of one pack, a few milliseconds of one core; several such for each core."""
FAR: Final = Depth(2 << 20, 64 << 20)
"""Where each request waits for a network: 50 ms of 200 MB/s are 10 MB, and four times as much keeps
them coming while maps are fetched, too."""
_FIRST: Final = 8 << 20
"""Ahead of who has only begun to read on; it grows with what he has read."""
_GROWTH: Final = 4
_PROOF: Final = 256 << 10
"""Bytes read in sequence before anything is prefetched: two requests of the kernel's default."""
_REORDER: Final = 4 << 20
"""The kernel sends up to 4 MiB of read-ahead at once, and its requests overtake one another."""


class Window(NamedTuple):
    """Bytes [offset, offset + length) of a file."""

    offset: int
    length: int


def depth_of(lanes: int) -> Depth:
    """What pays off where a store takes so many requests at once."""
    return NEAR if lanes == 1 else FAR


class SequentialDetector:
    """One open file of `size` bytes. Remembers where its reader is and what was planned."""

    def __init__(self, size: int, window: int = NEAR.window) -> None:
        self._size = size
        self._window = window
        self._expected = 0
        self._streak = 0
        self._planned = 0

    @property
    def sequential(self) -> bool:
        """Whether the last read belonged to a sequence long enough to prefetch for."""
        return self._streak >= _PROOF

    def saw(self, offset: int, length: int, ahead: int) -> list[Window]:
        """A read happened: what to fetch now so that up to `ahead` bytes are ready behind it."""
        end = offset + length
        if not -_REORDER <= offset - self._expected <= _REORDER or self._is_jump(offset):
            self._streak = 0
            self._planned = 0
            self._expected = end
            return []
        self._streak += length
        self._expected = max(self._expected, end)
        return self._plan(ahead) if self.sequential else []

    def _is_jump(self, offset: int) -> bool:
        """Until a sequence is proven, only exact successors count."""
        return not self.sequential and offset != self._expected

    def _plan(self, ahead: int) -> list[Window]:
        """Whole windows from the end of what was planned to `ahead` bytes behind the reader."""
        ahead = min(ahead, _FIRST + _GROWTH * self._streak)
        stop = min(self._size, self._expected + ahead)
        start = max(self._planned, self._expected)
        windows = []
        while start < stop:
            end = min(self._size, (start // self._window + 1) * self._window)
            if end > stop:
                break
            windows.append(Window(start, end - start))
            start = end
        self._planned = max(self._planned, start)
        return windows
