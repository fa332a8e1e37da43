"""A mount served by a child of this process, gone with it: for what needs a mount while it works.

Forks, so it must be called before this process has threads; the child has the opened repository
already and nobody is asked for a passphrase again.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import Final

from backpoint_fusefs.background import start_child
from backpoint_fusefs.held_connection import hold_connection
from backpoint_fusefs.mount_log import log_to_stderr
from backpoint_fusefs.mount_point import find_mount
from backpoint_fusefs.mounting import MountPlan, serve_mount
from backpoint_fusefs.unmounting import MountBusy, take_away
from backpoint_repo.errors import RepositoryError

_LAZY_S: Final = 1.0
"""For programs that are ending anyway to let go of their files."""
_END_S: Final = 30.0
"""Sessions are synced and closed in it."""


class ServedMount:
    """A context manager; the mount is gone when it is left. Its child dies with its parent."""

    def __init__(
        self, plan: MountPlan, log: int, log_name: str = "the log", *, patient: bool = False
    ) -> None:
        """Returns once the mount answers. log: descriptor for what it says; log_name: for the
        user. patient: requests that are under way when the process dies wait for `let_go` or
        `end`, instead of failing at once. Raises what mounting raises, as BackgroundFailed."""

        def work(ready: object) -> None:
            assert callable(ready)
            log_to_stderr()
            serve_mount(plan, ready)

        self._place = plan.mount_point
        self._pid = start_child(work, log, log_name, bound=True)
        self._pidfd = os.pidfd_open(self._pid)
        self._held = hold_connection(self._pid, self._pidfd) if patient else []
        self._ended = False

    def __enter__(self) -> ServedMount:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pidfd(self) -> int:
        """To be waited for: readable when the mount's process has ended."""
        return self._pidfd

    @property
    def pid(self) -> int:
        return self._pid

    def let_go(self) -> None:
        """What waits for a process that died fails now. Harmless when repeated."""
        while self._held:
            os.close(self._held.pop())

    def end(self) -> None:
        """Unmount and wait; lazily where files are open. Harmless when repeated.

        Also clears the mount of a process that died. Raises UsageError where it cannot be taken
        away, RepositoryError where the process had to be killed.
        """
        if self._ended:
            return
        self._ended = True
        if self._gone_within(0):
            self.let_go()
        try:
            self._take_away()
        finally:
            killed = not self._gone_within(_END_S)
            if killed:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.let_go()
            os.waitpid(self._pid, 0)
            os.close(self._pidfd)
        if killed:
            raise RepositoryError(
                f"the mount at {self._place} did not end and was killed: a store may not be "
                "answering"
            )

    def _take_away(self) -> None:
        if find_mount(self._place) is None:
            self._terminate()
            return
        try:
            take_away(self._place, lazy=False)
        except MountBusy:
            take_away(self._place, lazy=True)
            if not self._gone_within(_LAZY_S):
                self._terminate()

    def _terminate(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def _gone_within(self, seconds: float) -> bool:
        return bool(select.select([self._pidfd], [], [], seconds)[0])
