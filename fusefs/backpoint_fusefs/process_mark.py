"""Which process, told so that a later one with the same number is not mistaken for it."""

from __future__ import annotations

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
