"""Which process, told so that a later one with the same number is not mistaken for it."""

from __future__ import annotations

import os
import select
from pathlib import Path

_START_TIME_FIELD = 19
"""Of /proc/PID/stat, counted after the name in brackets, which may hold anything."""


def process_mark(pid: int) -> bytes:
    """`PID START`, start in ticks since boot. Raises ProcessLookupError."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    start = stat.rpartition(")")[2].split()[_START_TIME_FIELD]
    return f"{pid} {start}".encode()


def still_runs(mark: bytes) -> bool:
    """Whether the process of this mark has not ended. Raises ValueError where it is no mark."""
    try:
        pid = int(mark.split()[0])
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, IndexError, OverflowError, OSError):
        return False
    try:
        # One that ended keeps its mark until its parent has asked after it.
        return not select.select([pidfd], [], [], 0)[0] and process_mark(pid) == mark
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
