"""A few threads that do what the event loop must not: fetch, decode, list.

Decides in which order jobs run: what a reader waits for goes before what is only prefetched. Made
for short jobs: the threads persist and one wake-up of the loop delivers all results that are ready
(10 to 80 microseconds a job, where trio.to_thread takes 130).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import outcome
import trio

T = TypeVar("T")
WORKERS: Final = os.cpu_count() or 1
_CLOSE_S: Final = 5.0
"""How long a closing mount waits for a store that does not answer."""

_Deliver = Callable[["outcome.Outcome[Any]"], None]
Job = tuple[Callable[..., Any], tuple[Any, ...], _Deliver]


class DecodeWorkers:
    """To be made, used and closed in the thread of a trio loop."""

    def __init__(self, count: int = WORKERS) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._tickets: SimpleQueue[bool] = SimpleQueue()
        self._urgent: deque[Job] = deque()
        self._spare: deque[Job] = deque()
        self._done: list[tuple[_Deliver, outcome.Outcome[Any]]] = []
        self._lock = threading.Lock()
        self._threads = [
            # Daemons: one that hangs in a dead store must not keep the process alive.
            threading.Thread(target=self._work, name=f"decode-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """The function's result, or its exception, from a worker.

        Cancellation waits for the job: its result is about to be cached anyway.
        """
        task = trio.lowlevel.current_task()

        def deliver(result: outcome.Outcome[T]) -> None:
            trio.lowlevel.reschedule(task, result)

        self._urgent.append((function, args, deliver))
        self._tickets.put(True)
        found: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return found

    def start(self, function: Callable[..., Any], *args: Any, deliver: _Deliver) -> Job:
        """Do it when nothing urgent is waiting; `deliver` gets the outcome, in the loop."""
        job = (function, args, deliver)
        self._spare.append(job)
        self._tickets.put(True)
        return job

    def hurry(self, job: Job) -> None:
        """Somebody waits for it now: it goes before what nobody waits for."""
        try:
            self._spare.remove(job)
        except ValueError:
            return  # it has begun, or is urgent already
        self._urgent.append(job)
        # A worker may have spent this job's ticket in between.
        self._tickets.put(True)

    @property
    def count(self) -> int:
        """Jobs that can run at once."""
        return len(self._threads)

    def close(self) -> None:
        """Drop what has not begun and end the threads. To be called when no task waits."""
        self._spare.clear()
        for _ in self._threads:
            self._tickets.put(False)
        for thread in self._threads:
            thread.join(_CLOSE_S)

    def _work(self) -> None:
        while self._tickets.get():
            job = self._next()
            if job is not None:
                function, args, deliver = job
                self._hand_back(deliver, outcome.capture(function, *args))

    def _next(self) -> Job | None:
        """There is a ticket for each job, but `close` drops jobs and not their tickets."""
        for jobs in (self._urgent, self._spare):
            try:
                return jobs.popleft()
            except IndexError:
                continue
        return None

    def _hand_back(self, deliver: _Deliver, result: outcome.Outcome[Any]) -> None:
        with self._lock:
            self._done.append((deliver, result))
            alone = len(self._done) == 1
        if alone:
            try:
                self._token.run_sync_soon(self._deliver_all)
            except trio.RunFinishedError:
                # The mount is gone, and with it everybody who waited.
                return

    def _deliver_all(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for deliver, result in done:
            deliver(result)
