"""How fast may be read: a token bucket that never holds more than the piece being taken.

Decides when a reader may go on. Knows no packs; clock and sleep are the caller's, so that a signal
can end the sleep.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Pace:
    """Thread-safe: all threads together take at most `rate` bytes a second.

    Time that nobody used is lost, so that a store that stood still is not flooded afterwards.
    """

    def __init__(
        self, rate: float, clock: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        """clock: seconds, monotonic. sleep: for so many seconds; may end early."""
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, size: int) -> None:
        """Return when it is time to read `size` bytes."""
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now)
            self._free_at = start + size / self._rate
        if start > now:
            self._sleep(start - now)
