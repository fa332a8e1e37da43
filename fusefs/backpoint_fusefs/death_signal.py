"""A signal when the parent dies, however it dies: children that are nothing without it end with it.

For processes just forked and not yet threaded; the kernel counts the parent *thread*, so a parent
forks such children from its main thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int, number: signal.Signals) -> None:
    """Called in the child. parent: the process that forked it. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        # It died before the kernel knew that we want to be told.
        os.kill(os.getpid(), number)
