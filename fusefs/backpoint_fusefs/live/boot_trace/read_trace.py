"""What is read of a session's point, in order, while its machine boots.

Decides the grain: units of 64 KiB (a chunk is about that), each counted once, when it is first
asked for. Knows no session; where a trace is kept is for `trace_files.py`.
"""

from __future__ import annotations

import threading
from typing import Final

from backpoint_fusefs.live.live_file import BaseContent
from backpoint_repo.boot_trace import RANGES_MAX, TracedRange

_UNIT: Final = 64 << 10


class ReadTrace:
    """Thread-safe; bounded by RANGES_MAX units."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._units: dict[tuple[int, int], None] = {}

    def saw(self, disk: int, offset: int, length: int) -> None:
        """Bytes [offset, offset + length) of a disk were asked for."""
        with self._lock:
            for unit in range(offset // _UNIT, -(-(offset + length) // _UNIT)):
                if len(self._units) < RANGES_MAX:
                    self._units.setdefault((disk, unit))

    def ranges(self) -> list[TracedRange]:
        """So far; neighbours that were read one after the other are one range."""
        with self._lock:
            units = list(self._units)
        found: list[TracedRange] = []
        for disk, unit in units:
            last = found[-1] if found else None
            if last and last.disk == disk and last.offset + last.length == unit * _UNIT:
                found[-1] = last._replace(length=last.length + _UNIT)
            else:
                found.append(TracedRange(disk, unit * _UNIT, _UNIT))
        return found


class TracedBase:
    """A `BaseContent` whose reads are counted."""

    def __init__(self, base: BaseContent, disk: int, trace: ReadTrace) -> None:
        self._base = base
        self._disk = disk
        self._trace = trace

    @property
    def size(self) -> int:
        return self._base.size

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None:
        found = self._base.read_cached(offset, length)
        if found is not None:
            self._trace.saw(self._disk, offset, len(found))
        return found

    def read(self, offset: int, length: int) -> bytes | memoryview:
        found = self._base.read(offset, length)
        self._trace.saw(self._disk, offset, len(found))
        return found
