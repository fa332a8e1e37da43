"""How a process that moves chunks all day wants its memory and its threads treated.

Affects the whole process, so only commands tune it, once, when they have their keys. Knows nothing
of what the process does.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_NEVER: Final = 1 << 30
_SWITCH_INTERVAL_S: Final = 0.0003


def tune_for_chunks() -> None:
    """Keep freed memory, and let threads take turns quickly.

    Memory given back to the kernel must be cleared again at the next touch, and on a virtual
    machine be fetched from its host. And a thread that comes back from hashing 64 KiB in 7
    microseconds should not wait 5 ms, Python's default, for one that builds a list.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        mallopt(_M_MMAP_THRESHOLD, _NEVER)


def give_back_freed() -> None:
    """After something large that does not come again: what it left is not kept."""
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
