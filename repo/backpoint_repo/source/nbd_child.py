"""One process that serves one disk over NBD on a private socket.

Decides how such a child is started, watched, quoted and ended. Refuses to know which program it is,
which disk it serves, and whether that is read or written. What makes the child die with us, even by
SIGKILL, is its command's affair.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO, TypeVar

from backpoint_repo.errors import SourceError

_START_LIMIT_S = 30.0
_END_LIMIT_S = 5.0
_POLL_MS = 5
# A dying child closes its socket a moment before it can be reaped.
_LAST_WORDS_MS = 200
_STDERR_LIMIT = 2000

C = TypeVar("C")
Start = Callable[[Sequence[str], IO[bytes]], "subprocess.Popen[bytes]"]


def start_child(command: Sequence[str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start it with nothing of ours but `stderr`. Raises OSError."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        # Ctrl-C at the terminal is for us; the child ends when we close.
        start_new_session=True,
    )


class NbdChild:
    """A running NBD server. Its errors name the disk as `name` and the server as `program`."""

    def __init__(
        self,
        name: str,
        address: str,
        command: Sequence[str],
        *,
        program: str,
        secret: str = "",
        start: Start = start_child,
    ) -> None:
        """Start `command`, which is to listen on the Unix socket `address`.

        secret: taken out of whatever the child says. Raises SourceError if it does not start.
        """
        self._name = name
        self._address = address
        self._program = program
        self._secret = secret
        with ExitStack() as opened:
            try:
                self._stderr: IO[bytes] = opened.enter_context(tempfile.TemporaryFile())
                self._child = start(command, self._stderr)
                opened.callback(self._end)
                self._exited = os.pidfd_open(self._child.pid)
                opened.callback(os.close, self._exited)
            except OSError as error:
                raise SourceError(f"cannot start {program} for {name!r}: {error}") from error
            self._opened = opened.pop_all()

    @property
    def address(self) -> str:
        """The Unix socket it listens on."""
        return self._address

    @property
    def pid(self) -> int:
        """Of the process, for whoever wants to see it."""
        return self._child.pid

    def first_connection(self, connect: Callable[[], C]) -> C:
        """`connect()` as soon as the child listens, or a SourceError that says why it never will.

        `connect` raises OSError where nobody listens yet, SourceError where the handshake fails.
        """
        deadline = time.monotonic() + _START_LIMIT_S
        gone = select.poll()
        gone.register(self._exited, select.POLLIN)
        refusal: OSError | SourceError
        while True:
            try:
                return connect()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                refusal, patience_ms = error, _POLL_MS
            except (OSError, SourceError) as error:
                # It listens before it has opened the image, so it may also die in the handshake.
                refusal, patience_ms = error, _LAST_WORDS_MS
            waiting = isinstance(refusal, FileNotFoundError | ConnectionRefusedError)
            # Code 0: it only ended because we did not like what it offered, and hung up.
            if gone.poll(patience_ms) and (self._child.wait() or waiting):
                why = f"{self._program} cannot open {self._name!r}: {self._last_words()}"
                raise SourceError(why) from refusal
            if not waiting:
                why = f"no use of {self._program} for {self._name!r}: {refusal}"
                raise SourceError(self._with_its_words(why)) from refusal
            if time.monotonic() > deadline:
                why = f"{self._program} did not open {self._name!r} within {_START_LIMIT_S:g} s"
                raise SourceError(why) from refusal

    def explained(self, error: SourceError) -> SourceError:
        """Add the child's end to `error`, or what it said so far where it has not ended."""
        try:
            self._child.wait(_LAST_WORDS_MS / 1000)
        except subprocess.TimeoutExpired:
            return SourceError(self._with_its_words(str(error)))
        return SourceError(f"{error}; {self._obituary()}")

    def await_end(self, limit_s: float) -> None:
        """Wait until it has closed its image, after the last connection said goodbye.

        Raises SourceError if it fails to, or takes longer than `limit_s` seconds.
        """
        try:
            code = self._child.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            why = f"{self._program} did not close {self._name!r} within {limit_s:g} s"
            raise SourceError(why) from error
        if code:
            raise SourceError(f"closing {self._name!r} failed: {self._obituary()}")

    def close(self) -> None:
        """End it, if it still runs. Idempotent."""
        self._opened.close()

    def _obituary(self) -> str:
        code = self._child.returncode
        return f"{self._program} ended with code {code}: {self._last_words()}"

    def _last_words(self) -> str:
        return "it was closed" if self._stderr.closed else self._said() or "it said nothing"

    def _with_its_words(self, why: str) -> str:
        said = "" if self._stderr.closed else self._said()
        return f"{why}; {self._program} says: {said}" if said else why

    def _said(self) -> str:
        """The end of what is on its standard error, in one line that is safe for a terminal."""
        descriptor = self._stderr.fileno()
        start = max(0, os.fstat(descriptor).st_size - _STDERR_LIMIT)
        # pread: the child writes through the same file position.
        said = os.pread(descriptor, _STDERR_LIMIT, start).decode(errors="replace")
        if self._secret:
            # Where the reading begins in the middle, it may begin in the middle of the secret.
            said = said.replace(self._secret, "***")[len(self._secret) if start else 0 :]
        said = "; ".join(line for line in said.splitlines() if line)
        return "".join(character if character.isprintable() else "?" for character in said)

    def _end(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def require_program(program: str, name: str, package: str = "qemu-utils") -> str:
    """The path of a program of a Debian package. Raises SourceError where it is not installed."""
    path = shutil.which(program)
    if path is None:
        raise SourceError(f"{name!r} takes {program}: install the Debian package {package}")
    return path
