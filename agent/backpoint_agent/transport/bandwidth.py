"""The pace of reading: a number of bytes a second that all reads of a job share.

Decides who reads when: first come, first served, and each waits for what those before it took.
Refuses to know what is read and how fast it could go.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from backpoint_agent.stopping import Stop
from backpoint_repo.source.contract import Extent, ImageSource

PIECE: Final = 4 << 20
"""Bytes between two looks at the stop. Not less: a transport that splits what it is asked for (2
MiB each) shall have something to ask for at the same time."""

_SAVED_S: Final = 0.25
"""What was not used is kept for so long, so that a short pause of the reader costs no speed."""


class Bandwidth:
    """So many bytes a second, for any number of threads. One per job."""

    def __init__(
        self, bytes_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: seconds that only grow."""
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until = clock() - _SAVED_S

    def reserve(self, count: int) -> float:
        """Take `count` bytes; the seconds to wait before they may be read.

        Whoever comes next waits for these too, so nobody is overtaken and any size is served.
        """
        with self._lock:
            now = self._clock()
            begin = max(self._paid_until, now - _SAVED_S)
            self._paid_until = begin + count / self._rate
            return max(0.0, begin - now)


class Paced:
    """`ImageSource` that reads another at the job's pace, and hears a stop.

    `extents` and `read_into` raise Stopped, and what the source raises.
    """

    def __init__(self, source: ImageSource, bandwidth: Bandwidth | None, stop: Stop) -> None:
        """bandwidth: None for as fast as it goes."""
        self._source = source
        self._bandwidth = bandwidth
        self._stop = stop
        self._lock = threading.Lock()
        self._bytes_read = 0

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    @property
    def size(self) -> int:
        """The source's."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """Bytes that came out of the source so far."""
        return self._bytes_read

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The source's."""
        for extent in self._source.extents(offset, length):
            self._stop.check()
            yield extent

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, in pieces of PIECE bytes, each when its time has come."""
        target = buffer.cast("B")
        for start in range(0, len(target), PIECE):
            piece = target[start : start + PIECE]
            self._stop.check()
            if self._bandwidth is not None:
                self._stop.wait(self._bandwidth.reserve(len(piece)))
            self._source.read_into(offset + start, piece)
            with self._lock:
                self._bytes_read += len(piece)

    def close(self) -> None:
        """Close the source."""
        self._source.close()
