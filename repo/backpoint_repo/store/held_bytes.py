"""How many bytes a cache takes up: a number in a file, whose lock makes its holder the only writer.

Decides when room is made, and how much. Knows neither what takes up the bytes nor how it is found.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 1.0
"""For others who write. Many readers wait at once, so a slow disk costs them latency and little
bandwidth; beyond that a block is rather not kept."""
_FORMAT: Final = struct.Struct("<Q")
_ROOM: Final = 16
"""A sixteenth of the limit is freed at once: looking at all files takes 0.2 s for 50 GiB."""


class Busy(Exception):
    """Others write, or look for room."""


class HeldBytes:
    """The file, locked by this process."""

    def __init__(self, descriptor: int, limit: int, clean: Callable[[int], int]) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._clean = clean

    def room_for(self, need: int) -> bool:
        """Count `need` bytes more, before they are written; False where the limit is too low."""
        known = _parsed(os.pread(self._descriptor, _FORMAT.size + 1, 0))
        held = self._limit if known is None else known
        # What was written twice, or dropped, was counted all the same: it is looked for first.
        if held + need > self._limit:
            held = self._clean(0)
        if held + need > self._limit:
            held = self._clean(held + max(need, self._limit // _ROOM) - self._limit)
        fits = held + need <= self._limit
        os.pwrite(self._descriptor, _FORMAT.pack(held + need if fits else held), 0)
        os.ftruncate(self._descriptor, _FORMAT.size)
        return fits


@contextmanager
def held_bytes(path: Path, limit: int, clean: Callable[[int], int]) -> Iterator[HeldBytes]:
    """clean: frees so many bytes and returns how many are taken up then. Raises Busy, OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        _lock(descriptor)
        yield HeldBytes(descriptor, limit, clean)
    finally:
        os.close(descriptor)


def read_held(path: Path) -> int | None:
    """The number without waiting; None where there is none."""
    try:
        with open(path, "rb") as file:
            return _parsed(file.read(_FORMAT.size + 1))
    except OSError:
        return None


def _parsed(data: bytes) -> int | None:
    return int(_FORMAT.unpack(data)[0]) if len(data) == _FORMAT.size else None


def _lock(descriptor: int) -> None:
    """Whoever holds it and dies, loses it. Raises Busy."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy from None
            time.sleep(0.001)
        else:
            return
