"""Writers go on side by side; a cut waits for them and keeps new ones out for a moment.

Decides who waits for whom, and that nobody writes to what is frozen. Knows no files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backpoint_fusefs.live.errors import SessionFrozen


class WriteGate:
    """Thread-safe; not to be entered twice by one thread.

    frozen: `writing` raises SessionFrozen. To be set while the gate is shut.
    """

    def __init__(self, *, frozen: bool) -> None:
        self.frozen = frozen
        self._condition = threading.Condition()
        self._inside = 0
        self._shut = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raises SessionFrozen."""
        with self._condition:
            while self._shut:
                self._condition.wait()
            if self.frozen:
                raise SessionFrozen("the session is frozen: nothing in it can be changed")
            self._inside += 1
        try:
            yield
        finally:
            self.leave()

    def enter_at_once(self) -> bool:
        """As `writing`, to be followed by `leave`; False where that would have to wait, or fail."""
        if not self._condition.acquire(blocking=False):
            return False
        try:
            if self._shut or self.frozen:
                return False
            self._inside += 1
            return True
        finally:
            self._condition.release()

    def leave(self) -> None:
        """A writer is done."""
        with self._condition:
            self._inside -= 1
            if not self._inside:
                self._condition.notify_all()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Nobody writes meanwhile. For one thread at a time; who has it sees to that."""
        with self._condition:
            self._shut = True
            while self._inside:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self._shut = False
                self._condition.notify_all()
