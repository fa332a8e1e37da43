"""How often and how long something is tried again: growing pauses, not the same for all.

A store that has answered once is waited for, as long as short outages last; one that never did is
rather at a wrong address, and whoever typed that should hear of it soon. Knows no request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final, TypeVar

from backpoint_repo.store.object_faults import Temporary

T = TypeVar("T")
FIRST_PAUSE_S: Final = 0.2
PAUSE_MAX_S: Final = 15.0
PATIENCE_S: Final = 120.0
FIRST_PATIENCE_S: Final = 8.0
TRIES_MIN: Final = 3
"""Of what takes longer than all patience to fail: a large put of which nothing is heard."""


class Retries:
    """Thread-safe: of all requests to one store."""

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        """pause: seconds to wait."""
        self._pause = pause
        self._answered = False

    def answered(self) -> None:
        """It is there."""
        self._answered = True

    def run(self, attempt: Callable[[], T]) -> T:
        """What it returns; tried again while it raises Temporary. Raises the last one, or what
        that says it is in the end."""
        begin, paused, pauses = time.monotonic(), 0.0, plan_pauses(random.random)
        for tries in count(1):
            try:
                result = attempt()
            except Temporary as fault:
                self._answered |= fault.there
                pause = next(pauses)
                paused += pause
                if self._enough(tries, paused, time.monotonic() - begin + pause):
                    raise fault.final or fault from None
                self._pause(pause)
            else:
                self._answered = True
                return result
        raise AssertionError("unreachable")

    def _enough(self, tries: int, paused: float, passed: float) -> bool:
        """paused, passed: seconds, with the next pause."""
        if self._answered:
            return paused > PATIENCE_S or (passed > PATIENCE_S and tries >= TRIES_MIN)
        return max(paused, passed) > FIRST_PATIENCE_S


def plan_pauses(chance: Callable[[], float]) -> Iterator[float]:
    """Seconds before each next try, without end. chance: in [0, 1), so that all who were turned
    away at once do not come back at once."""
    longest = FIRST_PAUSE_S
    while True:
        yield longest * (0.5 + chance() / 2)
        longest = min(2 * longest, PAUSE_MAX_S)
