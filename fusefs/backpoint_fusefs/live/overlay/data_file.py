"""A layer's bytes: a sparse file in which each byte of the disk lies at its own offset.

Which of its bytes mean anything is for the layer; here they are read, written, punched and made
durable. The descriptor is closed when the last one who may read from it lets go of the object.
"""

from __future__ import annotations

import ctypes
import errno
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2
_NO_HOLES: Final = (errno.EOPNOTSUPP, errno.ENOSYS)
_ZEROS: Final = bytes(1 << 20)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class SyncFailed(OSError):
    """What was written may be lost: the system drops what it failed to write, so that trying
    again would succeed and mean nothing."""


class DataFile:
    """Thread-safe as far as the system's calls are. All methods raise OSError."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._nowait = True
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def create(cls, path: Path) -> DataFile:
        return cls(path, os.open(path, _CREATE, 0o600))

    @classmethod
    def open(cls, path: Path, *, writable: bool) -> DataFile:
        return cls(path, os.open(path, _OPEN | (os.O_RDWR if writable else os.O_RDONLY)))

    @property
    def length(self) -> int:
        return os.fstat(self._descriptor).st_size

    @property
    def allocated(self) -> int:
        """Bytes it takes on disk."""
        return os.fstat(self._descriptor).st_blocks * 512

    def read(self, offset: int, length: int) -> bytes:
        """All of it: zeros behind the file's end, where only a race with a cut can lead."""
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length:
            return data
        whole = bytearray(length)
        whole[: len(data)] = data
        self.read_into(offset + len(data), memoryview(whole)[len(data) :])
        return bytes(whole)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As `read`."""
        while len(view):
            done = os.preadv(self._descriptor, [view], offset)
            if done == 0:
                view[:] = bytes(len(view))
                return
            offset, view = offset + done, view[done:]

    def read_into_cached(self, offset: int, view: memoryview) -> bool:
        """Whether all of it was in the page cache; never waits."""
        if not self._nowait:
            return False
        try:
            return os.preadv(self._descriptor, [view], offset, os.RWF_NOWAIT) == len(view)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._nowait = False
            return False

    def write(self, offset: int, parts: Sequence[bytes | memoryview]) -> int:
        """Bytes written, at least one; fewer than all where the system stopped on the way."""
        done = os.pwritev(self._descriptor, parts, offset)
        if done == 0:
            raise OSError(errno.EIO, "the system writes nothing", str(self.path))
        return done

    def truncate(self, length: int) -> None:
        os.ftruncate(self._descriptor, length)

    def zero(self, offset: int, length: int) -> None:
        """A hole where the filesystem can, else zeros; never changes the file's length."""
        mode = _KEEP_SIZE | _PUNCH_HOLE
        place, count = ctypes.c_int64(offset), ctypes.c_int64(length)
        if _LIBC.fallocate(self._descriptor, mode, place, count) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_HOLES:
            raise OSError(number, os.strerror(number), str(self.path))
        end = offset + length
        while offset < end:
            offset += os.pwrite(self._descriptor, _ZEROS[: end - offset], offset)

    def data_stretches(self, offset: int, end: int) -> list[tuple[int, int]]:
        """[start, end) of what is no hole, as the filesystem tells it."""
        found = []
        while offset < end:
            try:
                start = os.lseek(self._descriptor, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            if start >= end:
                break
            stop = min(end, os.lseek(self._descriptor, start, os.SEEK_HOLE))
            found.append((start, stop))
            offset = stop
        return found

    def forget_cached(self) -> None:
        """What is read from now on is what the disk has, but for what is still to be written."""
        forget_cached(self._descriptor)

    def sync(self) -> None:
        """All that was written before is durable. Raises SyncFailed."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror, str(self.path)) from error


def forget_cached(descriptor: int) -> None:
    """Of a file that a process left: after a failed sync the system keeps what it did not write,
    and calls it written."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
