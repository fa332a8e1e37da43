"""Tells the C library to keep the memory a backup or a mount frees, instead of giving it back.

Blobs of 64 KiB and packs of 32 MiB come and go all the time; memory given back to the kernel must
be cleared again at the next touch, and on a virtual machine perhaps fetched from the host. Affects
the whole process, so only commands call it, once, at their start.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_NEVER: Final = 1 << 30


def keep_freed_memory() -> None:
    """Has no effect where the C library is not glibc."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        mallopt(_M_MMAP_THRESHOLD, _NEVER)
