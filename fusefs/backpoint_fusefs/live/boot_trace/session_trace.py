"""What a machine that boots from a session reads of its point: recorded where that was asked for.

Decides when it is written down: every few seconds and at the end, because whoever asked reads it
when the mount is gone. What is fetched ahead is for `boot_prefetch.py`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from backpoint_fusefs.live.boot_trace.read_trace import ReadTrace, TracedBase
from backpoint_fusefs.live.boot_trace.trace_files import is_trace_wanted, put_trace
from backpoint_fusefs.live.live_file import BaseContent
from backpoint_fusefs.live.session import OpenBase


class SessionTrace:
    """Of one open session. Thread-safe."""

    def __init__(self, folder: Path, open_base: OpenBase) -> None:
        self._folder = folder
        self._open = open_base
        self._trace = ReadTrace() if is_trace_wanted(folder) else None
        self._saved = 0

    def open_base(self, point_id: str, disk: int) -> BaseContent:
        """See `OpenBase`."""
        base = self._open(point_id, disk)
        return base if self._trace is None else TracedBase(base, disk, self._trace)

    def save(self) -> None:
        """What was read so far, for others. Losing it costs the next boot some time, so a disk that
        is full is no trouble."""
        if self._trace is None:
            return
        ranges = self._trace.ranges()
        if len(ranges) != self._saved:
            with contextlib.suppress(OSError):
                put_trace(self._folder, ranges)
                self._saved = len(ranges)
