"""A server that is nothing without us: started, watched by its pidfd, ended; dies when we die.

For single-threaded parents: what is set up between fork and exec is not safe in others.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from backpoint_fusefs.death_signal import die_with
from backpoint_repo.errors import UsageError

_END_S: Final = 5.0


class Child:
    """Runs when it is made."""

    def __init__(
        self,
        command: Sequence[str],
        log: int,
        *,
        package: str,
        environment: Mapping[str, str] | None = None,
        set_up: Callable[[], None] | None = None,
    ) -> None:
        """log: descriptor for what it prints. environment: beside PATH. set_up: what else the new
        process does before exec, with descriptors of ours still open. Raises UsageError."""
        parent = os.getpid()

        def prepare() -> None:
            die_with(parent, signal.SIGKILL)
            if set_up is not None:
                set_up()

        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Its own session: an interrupt at the terminal is for us, and we end it in order.
                start_new_session=True,
                close_fds=set_up is None,
                preexec_fn=prepare,
                env=None if environment is None else _environment(environment),
            )
        except FileNotFoundError:
            raise UsageError(f"{command[0]} is missing: install the package {package}") from None
        except PermissionError as error:
            raise UsageError(f"{command[0]} cannot be started: {error.strerror}") from error
        self.pidfd = os.pidfd_open(self._process.pid)
        self._started = time.monotonic()
        self._closed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lived_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def ended_within(self, seconds: float) -> bool:
        """Whether it has ended, or does so in that time."""
        return self._closed or bool(select.select([self.pidfd], [], [], seconds)[0])

    def kill(self) -> None:
        """At once, without waiting."""
        if not self._closed:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def end(self) -> None:
        """Ask it to end, kill it where it does not. Harmless when repeated."""
        if self._closed:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        if not self.ended_within(_END_S):
            self.kill()
        with suppress(subprocess.TimeoutExpired):
            # Not for ever: what waits in the kernel for a mount that hangs cannot even be killed.
            self._process.wait(_END_S)
        self._closed = True
        os.close(self.pidfd)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return kept | dict(more)
