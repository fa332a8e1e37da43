"""Jobs that write what readers have already: done later, in order, by one thread of their own.

Decides how much may wait, and for how long a reader does where too much waits. The thread ends when
there is nothing to do, and the process not before it. Knows nothing of what is written.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

_PATIENCE_S: Final = 1.0
"""Many readers wait at once, so a slow disk costs them latency and little bandwidth."""


class WriteBehind:
    """Thread-safe. A process is forked when all is done: its thread would not come along."""

    def __init__(self, limit: int, patience_s: float = _PATIENCE_S) -> None:
        """limit: bytes that may wait. patience_s: how long who adds more waits for room."""
        self._limit = limit
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._jobs: deque[tuple[int, Callable[[], None]]] = deque()
        self._size = 0
        self._working = False
        _settle_before_forks(weakref.ref(self))

    def add(self, size: int, job: Callable[[], None]) -> bool:
        """Have it done, once; False where there was no room for its `size` bytes for too long."""

        def has_room() -> bool:
            return not self._jobs or self._size + size <= self._limit

        with self._changed:
            if not self._changed.wait_for(has_room, self._patience_s):
                return False
            self._jobs.append((size, job))
            self._size += size
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="cache").start()
        return True

    def settle(self) -> None:
        """Wait until all is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._working)

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                try:
                    job()
                finally:
                    self._drop_first()
        except BaseException:  # a job's mistake must not leave those who wait waiting
            with self._changed:
                self._working = False
                self._changed.notify_all()
            raise

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            if self._jobs:
                return self._jobs[0][1]
            # Here, and not when the thread ends: whoever adds a job now must start another.
            self._working = False
            self._changed.notify_all()
            return None

    def _drop_first(self) -> None:
        with self._changed:
            self._size -= self._jobs.popleft()[0]
            self._changed.notify_all()


def _settle_before_forks(writer: weakref.ref[WriteBehind]) -> None:
    def settle() -> None:
        if (found := writer()) is not None:
            found.settle()

    os.register_at_fork(before=settle)
