"""Files written past the kernel's page cache, where the filesystem can.

What a cache keeps on its disk is in memory already, decoded: a second copy would push out something
better, and finding pages for it takes most of the time that writing does. Knows nothing of what is
written.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_ALIGNED: Final = 4096
_DIRECT_FROM: Final = 64 << 10
"""Bytes. Smaller ones are metadata, which is read again soon."""
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectWriter:
    """For one thread at a time. size_max: bytes of the largest file that is written directly."""

    def __init__(self, size_max: int) -> None:
        self._room = -(-size_max // _ALIGNED) * _ALIGNED
        self._buffer: mmap.mmap | None = None
        self._able = True

    def write(self, path: Path, parts: Sequence[bytes | memoryview], used: float) -> None:
        """Make a file that is not there yet of these parts. used: its time, in seconds since 1970.

        Raises OSError.
        """
        size = sum(map(len, parts))
        direct = self._able and _DIRECT_FROM <= size <= self._room
        try:
            descriptor = os.open(path, _FLAGS | (os.O_DIRECT if direct else 0), 0o600)
        except OSError as error:
            if not direct or error.errno != errno.EINVAL:
                raise
            self._able = direct = False
            path.unlink(missing_ok=True)
            descriptor = os.open(path, _FLAGS, 0o600)
        try:
            if direct:
                written = os.write(descriptor, self._filled(parts))
                os.ftruncate(descriptor, size)
            else:
                written = os.writev(descriptor, parts)
            if written < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.utime(descriptor, (used, used))
        finally:
            os.close(descriptor)

    def _filled(self, parts: Sequence[bytes | memoryview]) -> memoryview:
        """The parts, and what was there before up to the next border."""
        if self._buffer is None:
            private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._buffer = mmap.mmap(-1, self._room, flags=private)
        at = 0
        for part in parts:
            self._buffer[at : at + len(part)] = part
            at += len(part)
        return memoryview(self._buffer)[: -(-at // _ALIGNED) * _ALIGNED]
