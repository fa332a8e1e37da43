"""Fetching what the last boot of a VM read, in its order, before this boot asks for it.

Decides how much and how many at a time: a share of the chunk cache, so that what was fetched is
still there, and one job fewer than there are workers, so that nobody who waits has to wait longer.
Trouble is left for the read that needs these bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import outcome

from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_repo.boot_trace import TracedRange

_PIECE: Final = 1 << 20
"""Bytes fetched at once: neighbours in a pack come by one get."""


class BootPrefetch:
    """For the event loop only. fetch: reads one range of a disk into the cache, on a worker."""

    def __init__(
        self,
        workers: DecodeWorkers,
        fetch: Callable[[int, int, int], object],
        ranges: Iterable[TracedRange],
        bytes_max: int,
    ) -> None:
        self._workers = workers
        self._fetch = fetch
        self._waiting = deque(_pieces(ranges, bytes_max))

    def start(self) -> None:
        """Begin; it goes on by itself."""
        for _ in range(max(1, self._workers.count - 1)):
            self._next()

    def _next(self) -> None:
        if self._waiting:
            self._workers.start(self._fetch, *self._waiting.popleft(), deliver=self._done)

    def _done(self, _: outcome.Outcome[Any]) -> None:
        self._next()


def _pieces(ranges: Iterable[TracedRange], bytes_max: int) -> Iterable[tuple[int, int, int]]:
    """(disk, offset, length) of at most a piece each, together at most `bytes_max`."""
    left = bytes_max
    for disk, offset, length in ranges:
        for start in range(offset, offset + length, _PIECE):
            size = min(_PIECE, offset + length - start)
            left -= size
            if left < 0:
                return
            yield disk, start, size
