"""Taking turns at a file or folder among threads and processes: a lock file, waited for so long.

Decides the limit of the wait. What is done in a turn is the caller's affair, and must be short.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backpoint_agent.errors import Busy

LIMIT_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.02
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@contextlib.contextmanager
def turn(lock: Path, limit_s: float = LIMIT_S) -> Iterator[None]:
    """Hold the lock file; it stays there. Raises Busy, OSError."""
    descriptor = os.open(lock, _FLAGS, 0o600)
    try:
        deadline = time.monotonic() + limit_s
        while not _taken(descriptor):
            if time.monotonic() >= deadline:
                raise Busy(f"{lock}: another process has held it for {limit_s:g} s")
            time.sleep(_LOOK_EVERY_S)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
