"""A session's boot trace in its folder: asked for, recorded, and what the last one says to fetch.

The mount that has a session and whoever boots from it are two processes; these two files are all
they say to each other about it. Losing one costs time only, so nothing here is synced, and what
cannot be read is no trace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backpoint_repo.boot_trace import TracedRange, decode_trace, encode_trace
from backpoint_repo.errors import ObjectDamaged

_RECORDED: Final = "trace"
_AHEAD: Final = "ahead"
_FILE_MAX: Final = 4 << 20


def ask_for_trace(session: Path) -> None:
    """The mount that opens this session next records what is read. Raises OSError."""
    (session / _RECORDED).write_bytes(b"")


def is_trace_wanted(session: Path) -> bool:
    return (session / _RECORDED).exists()


def put_trace(session: Path, ranges: Sequence[TracedRange]) -> None:
    """What was read so far, in place of what was said before. Raises OSError."""
    fresh = session / f"{_RECORDED}.new"
    fresh.write_bytes(encode_trace(ranges))
    fresh.replace(session / _RECORDED)


def recorded_trace(session: Path) -> list[TracedRange]:
    """Empty where there is none."""
    return _read(session / _RECORDED)


def put_ranges_ahead(session: Path, ranges: Sequence[TracedRange]) -> None:
    """The mount that opens this session next fetches these, in order. Raises OSError."""
    (session / _AHEAD).write_bytes(encode_trace(ranges))


def ranges_ahead(session: Path) -> list[TracedRange]:
    """Empty where there are none."""
    return _read(session / _AHEAD)


def _read(path: Path) -> list[TracedRange]:
    with contextlib.suppress(OSError, ObjectDamaged), path.open("rb") as file:
        return decode_trace(file.read(_FILE_MAX), path.name)
    return []
