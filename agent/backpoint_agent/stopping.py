"""How work in threads is told to stop, and how it waits without becoming deaf.

Every sleep and every poll of the agent goes through a `Stop`; so anything can be stopped within a
second, and what runs from then on is only the clearing up. Knows nothing of what is stopped.
"""

from __future__ import annotations

import threading

from backpoint_agent.errors import Stopped


class Stop:
    """Thread-safe. Once requested it stays so."""

    def __init__(self, parent: Stop | None = None) -> None:
        """parent: whose request counts for this one too (a job's for each of its VMs)."""
        self._condition: threading.Condition = (
            parent._condition if parent else threading.Condition()
        )
        self._parent = parent
        self._reason: str | None = None

    def request(self, reason: str) -> None:
        """Ask to stop; the first reason is kept. For signal handlers use a thread."""
        with self._condition:
            self._reason = self._reason or reason
            self._condition.notify_all()

    @property
    def reason(self) -> str | None:
        """Why, or None while work may go on."""
        return self._reason or (self._parent.reason if self._parent else None)

    def check(self) -> None:
        """Raises Stopped once a stop was requested."""
        if self.reason is not None:
            raise Stopped(f"stopped: {self.reason}")

    def wait(self, seconds: float) -> None:
        """Sleep, ended early by a request. Raises Stopped then."""
        with self._condition:
            self._condition.wait_for(lambda: self.reason is not None, timeout=seconds)
        self.check()
