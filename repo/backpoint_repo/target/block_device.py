"""A disk written over an existing block device, which the user named.

Decides what makes that safe: the device is big enough and nobody uses it (the kernel says so),
holes are overwritten with zeros, and the disk's first MiB, where partition tables and superblocks
begin, is zero on the device until all the rest is durable: an unfinished restore does not look like
a disk. What the device has behind the disk's end stays as it was.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Final

from backpoint_repo.errors import TargetError, UsageError
from backpoint_repo.target.contract import Content
from backpoint_repo.target.raw_target import pwrite_all

_HEAD: Final = 1 << 20
_ZEROS: Final = memoryview(bytes(1 << 20))


class BlockDeviceTarget:
    """`ImageTarget` over the first `size` bytes of a device. Its head is kept in memory."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises UsageError where the device is in use or too small, TargetError."""
        self._path = path
        self._lock = threading.Lock()
        self._head = bytearray(min(_HEAD, size))
        try:
            # O_EXCL on a block device: the kernel refuses while it, or a partition of it, is
            # mounted or part of something (RAID, LVM, swap), and keeps others from mounting it.
            self._descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise UsageError(f"{str(path)!r} is mounted or otherwise in use") from None
            raise self._failed("open", error) from error
        try:
            self._refuse_smaller(size)
            self._write(0, bytes(len(self._head)))
            self._sync()
        except BaseException:
            self.abandon()
            raise

    def write_at(self, offset: int, data: Content) -> None:
        """Raises TargetError."""
        head = memoryview(data)[: max(0, len(self._head) - offset)]
        if head:
            with self._lock:
                self._head[offset : offset + len(head)] = head
        if len(head) < len(data):
            self._write(offset + len(head), memoryview(data)[len(head) :])

    def zero_at(self, offset: int, length: int) -> None:
        """Raises TargetError."""
        # The head began as zeros, in memory and on the device.
        end, offset = offset + length, max(offset, len(self._head))
        while offset < end:
            part = _ZEROS[: end - offset]
            self._write(offset, part)
            offset += len(part)

    def finish(self) -> None:
        """Raises TargetError."""
        self._sync()
        self._write(0, self._head)
        self._sync()
        self.abandon()

    def abandon(self) -> None:
        """Leave the device with an empty beginning."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _refuse_smaller(self, size: int) -> None:
        capacity = os.lseek(self._descriptor, 0, os.SEEK_END)
        if capacity < size:
            raise UsageError(
                f"{str(self._path)!r} has {capacity} bytes, too few for a disk of {size}"
            )

    def _write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        try:
            pwrite_all(self._descriptor, offset, memoryview(data))
        except OSError as error:
            raise self._failed(f"write at offset {offset} of", error) from error

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed("write", error) from error

    def _failed(self, action: str, error: OSError) -> TargetError:
        return TargetError(f"cannot {action} {str(self._path)!r}: {error.strerror}")
