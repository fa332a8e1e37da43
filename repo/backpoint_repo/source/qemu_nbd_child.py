"""One qemu-nbd process that serves one image on a private socket.

Decides how the child is started, watched and ended. Refuses to know which image that is, and
whether it is read or written.

The child dies with us because it runs without `--persistent`: when our last connection closes, even
by SIGKILL, it ends itself. PR_SET_PDEATHSIG would tie it to the *thread* that opened the image, and
setting it takes a `preexec_fn`, which may deadlock in a threaded program.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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


class QemuNbdChild:
    """A running qemu-nbd. Its errors name the disk as `name`."""

    def __init__(
        self, name: str, folder: str, node: Mapping[str, object], options: Sequence[str]
    ) -> None:
        """Start it on the block node `node`, its socket in the private folder `folder`.

        Raises SourceError if it is not installed or does not start.
        """
        self._name = name
        self._address = os.path.join(folder, "socket")
        program = require_program("qemu-nbd", name)
        with ExitStack() as opened:
            try:
                self._stderr: IO[bytes] = opened.enter_context(tempfile.TemporaryFile())
                self._child = subprocess.Popen(
                    [program, *options, f"--socket={self._address}", "json:" + json.dumps(node)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    # Ctrl-C at the terminal is for us; the child ends when we close.
                    start_new_session=True,
                )
                opened.callback(self._end)
                self._exited = os.pidfd_open(self._child.pid)
                opened.callback(os.close, self._exited)
            except OSError as error:
                raise SourceError(f"cannot start qemu-nbd for {name!r}: {error}") from error
            self._opened = opened.pop_all()

    @property
    def address(self) -> str:
        """The Unix socket it listens on."""
        return self._address

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
                why = f"qemu-nbd cannot open {self._name!r}: {self._last_words()}"
                raise SourceError(why) from refusal
            if not waiting:
                raise SourceError(f"no use of qemu-nbd for {self._name!r}: {refusal}") from refusal
            if time.monotonic() > deadline:
                why = f"qemu-nbd did not open {self._name!r} within {_START_LIMIT_S:g} s"
                raise SourceError(why) from refusal

    def explained(self, error: SourceError) -> SourceError:
        """Add the child's end to `error`, if it has ended."""
        try:
            self._child.wait(_LAST_WORDS_MS / 1000)
        except subprocess.TimeoutExpired:
            return error
        return SourceError(f"{error}; {self._obituary()}")

    def await_end(self, limit_s: float) -> None:
        """Wait until it has closed its image, after the last connection said goodbye.

        Raises SourceError if it fails to, or takes longer than `limit_s` seconds.
        """
        try:
            code = self._child.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            why = f"qemu-nbd did not close {self._name!r} within {limit_s:g} s"
            raise SourceError(why) from error
        if code:
            raise SourceError(f"closing {self._name!r} failed: {self._obituary()}")

    def close(self) -> None:
        """End it, if it still runs. Idempotent."""
        self._opened.close()

    def _obituary(self) -> str:
        return f"qemu-nbd ended with code {self._child.returncode}: {self._last_words()}"

    def _last_words(self) -> str:
        if self._stderr.closed:
            return "it was closed"
        # pread: the child writes through the same file position.
        said = os.pread(self._stderr.fileno(), _STDERR_LIMIT, 0).decode(errors="replace")
        return "; ".join(line for line in said.splitlines() if line) or "it said nothing"

    def _end(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def require_program(program: str, name: str) -> str:
    """The path of one of qemu's tools. Raises SourceError where it is not installed."""
    path = shutil.which(program)
    if path is None:
        raise SourceError(f"{name!r} takes {program}: install the Debian package qemu-utils")
    return path
