"""Who reads a file from front to back, and what to decode for them before they ask.

The detector is pure: reads in, ranges to fetch out. A reader that jumps about costs nothing extra.
How ranges are fetched is for `open_file.py`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

WINDOW: Final = 1 << 20
"""Bytes fetched at once: a dozen chunks of one pack, a few milliseconds of one core."""
AHEAD_MAX: Final = 8 << 20
"""Bytes decoded before they are asked for: several windows for each core."""
_PROOF: Final = 256 << 10
"""Bytes read in sequence before anything is prefetched: two requests of the kernel's default."""
_REORDER: Final = 4 << 20
"""The kernel sends up to 4 MiB of read-ahead at once, and its requests overtake one another."""


class Window(NamedTuple):
    """Bytes [offset, offset + length) of a file."""

    offset: int
    length: int


class SequentialDetector:
    """One open file of `size` bytes. Remembers where its reader is and what was planned."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._expected = 0
        self._streak = 0
        self._planned = 0

    @property
    def sequential(self) -> bool:
        """Whether the last read belonged to a sequence long enough to prefetch for."""
        return self._streak >= _PROOF

    def saw(self, offset: int, length: int, ahead: int) -> list[Window]:
        """A read happened: what to fetch now so that `ahead` bytes are ready behind it."""
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
        stop = min(self._size, self._expected + ahead)
        start = max(self._planned, self._expected)
        windows = []
        while start < stop:
            end = min(self._size, (start // WINDOW + 1) * WINDOW)
            if end > stop:
                break
            windows.append(Window(start, end - start))
            start = end
        self._planned = max(self._planned, start)
        return windows
