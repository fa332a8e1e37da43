"""A process that is forked and goes on by itself once it says that it works.

Forks before any thread exists. Until the child is ready its failures are the parent's: raised
there, with the same message and exit code.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

from backpoint_fusefs.death_signal import die_with
from backpoint_repo.errors import BackpointError, RepositoryError

_MESSAGE_MAX: Final = 1 << 16
_READY: Final = b"ready"
_BUG: Final = 70
_START_S: Final = 600.0
"""A catalogue of many thousand points on a slow store takes minutes, and not longer."""
_END_S: Final = 10.0

Work = Callable[[Callable[[], None]], None]
"""Calls what it is given once it works, and returns when it has ended."""


class BackgroundFailed(BackpointError):
    """The child could not do its work; `exit_code` is what it would have ended with."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_in_background(work: Work, log: int, log_name: str) -> None:
    """Fork; the child calls `work(ready)`. Returns in the parent once it called `ready`.

    log: a descriptor that becomes the child's stdout and stderr. Raises what the child raised
    before that, as BackgroundFailed; RepositoryError where it died without a word.
    """
    start_child(work, log, log_name, bound=False)


def start_child(work: Work, log: int, log_name: str, *, bound: bool) -> int:
    """As `run_in_background`; returns the child's pid, which the caller waits for (`waitpid`).

    bound: it gets SIGTERM when this process dies.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid() if bound else None
    pid = os.fork()
    if pid == 0:
        code = _BUG
        try:
            os.close(reading)
            code = _child(work, log, writing, parent)
        finally:
            # _exit: nothing of the parent's (its clean-up, its buffers) may run a second time.
            os._exit(code)
    os.close(writing)
    try:
        _await_ready(reading, log_name)
    except BaseException:
        _end(pid)
        raise
    finally:
        os.close(reading)
    return pid


def _end(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        if not select.select([pidfd], [], [], _END_S)[0]:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os.close(pidfd)


def _await_ready(pipe: int, log_name: str) -> None:
    message, deadline = b"", time.monotonic() + _START_S
    while len(message) < _MESSAGE_MAX:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise RepositoryError(
                f"the mount does not begin; what it said is in {log_name}. A store may not be "
                "answering"
            )
        piece = os.read(pipe, _MESSAGE_MAX)
        if not piece:
            break
        message += piece
    if message == _READY:
        return
    if not message:
        raise RepositoryError(f"the mount's process died; what it said is in {log_name}")
    said = json.loads(message)
    raise BackgroundFailed(said["message"], said["exit_code"])


def _child(work: Work, log: int, writing: int, parent: int | None) -> int:
    # The parent's handlers raise what only its own frames catch.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if parent is not None:
        die_with(parent, signal.SIGTERM)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    told = False

    def tell(message: bytes) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writing, message)
            os.close(writing)

    try:
        work(lambda: tell(_READY))
    except BackpointError as error:
        print(f"backpoint: {error}", file=sys.stderr, flush=True)
        tell(json.dumps({"message": str(error), "exit_code": error.exit_code}).encode())
        return error.exit_code
    except Exception as error:
        # The last frame of this process: what is not said here is never said.
        traceback.print_exc()
        tell(json.dumps({"message": f"a bug: {error!r}", "exit_code": _BUG}).encode())
        return _BUG
    return 0
