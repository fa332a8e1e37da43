"""Requests of one read made at the same time, where each waits for a network.

Decides how many threads help and how long they stay. The caller works, too: its jobs never wait
only for other callers' jobs. Knows nothing of what is fetched.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_IDLE_S: Final = 10.0
"""A thread that nobody needed for so long ends."""


class FetchLanes:
    """Thread-safe. lanes: helping threads at most, all callers together; 1: there are none."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._lock = threading.Lock()
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads = 0
        self._idle = 0

    def each(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """What each returns, in order. After an error no other job begins; it is raised when those
        that had begun are done."""
        if self._lanes == 1 or len(jobs) < 2:
            return [job() for job in jobs]
        share = _Share(jobs)
        for _ in range(min(self._lanes, len(jobs) - 1)):
            self._ask_for_help(share.work)
        share.work()
        return share.results()

    def _ask_for_help(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._work.put(work)
            wanted = self._work.qsize() > self._idle and self._threads < self._lanes
            self._threads += wanted
        if wanted:
            # Daemons: one that hangs in a dead store must not keep the process alive.
            threading.Thread(target=self._help, name="fetch", daemon=True).start()

    def _help(self) -> None:
        while (work := self._next()) is not None:
            work()

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            self._idle += 1
        try:
            work = self._work.get(timeout=_IDLE_S)
        except Empty:
            work = None
        with self._lock:
            self._idle -= 1
            if work is None:
                # What came between waiting and here is for somebody who starts anew, or the caller.
                self._threads -= 1
        return work


class _Share(Generic[T]):
    """The jobs of one call: whoever has time takes the next."""

    def __init__(self, jobs: Sequence[Callable[[], T]]) -> None:
        self._left = deque(enumerate(jobs))
        self._unfinished = len(jobs)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._results: dict[int, T] = {}
        self._error: BaseException | None = None

    def work(self) -> None:
        """Until there is no more to begin."""
        while (taken := self._take()) is not None:
            at, job = taken
            try:
                result = job()
            except BaseException as error:  # raised again in the thread that called
                self._finish(error)
            else:
                self._results[at] = result
                self._finish(None)

    def results(self) -> list[T]:
        """Once all are done. Raises what one raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return [self._results[at] for at in range(len(self._results))]

    def _take(self) -> tuple[int, Callable[[], T]] | None:
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def _finish(self, error: BaseException | None) -> None:
        with self._lock:
            self._unfinished -= 1
            if error is not None:
                self._error = self._error or error
                while self._take() is not None:
                    self._unfinished -= 1
            if self._unfinished == 0:
                self._done.set()
