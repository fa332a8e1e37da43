"""The line in which the VMs of all jobs of this process wait, and those that run.

One for all, so that jobs on one vCenter keep its limits together and none overtakes another by
being quicker. Who is next is decided in `pace.py`. For the thread that trio runs in.
"""

from __future__ import annotations

import trio

from backpoint_agent.jobs.pace import Waiting, next_to_start


class Line:
    """Of one process."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._running: list[Waiting] = []
        self._changed = trio.Event()

    def join(self, item: Waiting) -> None:
        """At the end."""
        self._waiting.append(item)
        self._change()

    def leave(self, run: str) -> None:
        """None of this run's waits any more."""
        self._waiting = [item for item in self._waiting if item.run != run]
        self._change()

    def has(self, run: str) -> bool:
        """Whether one of this run's waits or runs."""
        return any(item.run == run for item in (*self._waiting, *self._running))

    def start(self, run: str) -> Waiting | None:
        """The next, from now on running; None where nobody may start, or another run's is next,
        which then starts it."""
        running = (item.claim for item in self._running)
        item = next_to_start(self._waiting, running, trio.current_time())
        if item is None or item.run != run:
            return None
        self._waiting.remove(item)
        self._running.append(item)
        self._change()
        return item

    def end(self, item: Waiting) -> None:
        """It runs no more."""
        self._running.remove(item)
        self._change()

    async def change(self, limit_s: float) -> None:
        """Wait until something is different, or so many seconds: time passes too."""
        changed = self._changed
        with trio.move_on_after(limit_s):
            await changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
