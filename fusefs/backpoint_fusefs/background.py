"""A process that goes on in the background once it says that it works.

Forks before any thread exists. Until the child is ready its failures are the parent's: raised
there, with the same message and exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Final

from backpoint_repo.errors import BackpointError, RepositoryError

_MESSAGE_MAX: Final = 1 << 16
_READY: Final = b"ready"
_BUG: Final = 70


class BackgroundFailed(BackpointError):
    """The child could not do its work; `exit_code` is what it would have ended with."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_in_background(work: Callable[[Callable[[], None]], None], log: int, log_name: str) -> None:
    """Fork; the child calls `work(ready)`. Returns in the parent once it called `ready`.

    log: a descriptor that becomes the child's stdout and stderr. Raises what the child raised
    before that, as BackgroundFailed; RepositoryError where it died without a word.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        # os._exit: nothing of the parent's (its clean-up, its buffers) may run a second time.
        os._exit(_child(work, log, writing))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        message = pipe.read(_MESSAGE_MAX)
    if message == _READY:
        return
    if not message:
        raise RepositoryError(f"the mount's process died; what it said is in {log_name}")
    said = json.loads(message)
    raise BackgroundFailed(said["message"], said["exit_code"])


def _child(work: Callable[[Callable[[], None]], None], log: int, writing: int) -> int:
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
