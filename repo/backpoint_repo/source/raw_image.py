"""A disk that already is plain bytes: a regular file or a block device.

Decides how such a disk is read: its size when it was opened, its holes as the filesystem tells
them, and its bytes straight into the caller's buffer. Refuses to know image formats: a file that
looks like a qcow2 is read as the bytes it is made of. Whoever wants it interpreted asks `detect`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.source.contract import Extent

# lseek answers these for "this kind of file cannot tell holes": block devices, some network mounts.
_CANNOT_TELL_HOLES = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


class RawImage:
    """`ImageSource` of a regular file or block device, opened read-only."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`. Raises SourceError if it is missing, unreadable, or no disk at all."""
        self._name = os.fspath(path)
        try:
            # Without O_NONBLOCK, opening a fifo would wait for its writer for ever.
            self._descriptor = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:  # ValueError: the path holds a zero byte
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SourceError(f"cannot open {self._name!r}: {reason}") from error
        try:
            mode = os.fstat(self._descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise SourceError(f"{self._name!r} is neither a regular file nor a block device")
            self.is_block_device = stat.S_ISBLK(mode)
            # fstat says 0 for a block device; its end is the only size it has.
            self._size = os.lseek(self._descriptor, 0, os.SEEK_END)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except OSError as error:
            self.close()
            raise SourceError(f"cannot open {self._name!r}: {error.strerror}") from error
        except SourceError:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The path as it was given."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes at the time of opening."""
        return self._size

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Holes and data as the filesystem tells them; one data extent where it cannot.

        Raises SourceShrank if the file ends before `size` now, SourceError for other failures.
        """
        end = offset + length
        while offset < end:
            data = min(self._seek(offset, os.SEEK_DATA), end)
            if data > offset:
                yield Extent(offset, data - offset, hole=True)
                offset = data
            if offset < end:
                hole = min(self._seek(offset, os.SEEK_HOLE), end)
                yield Extent(offset, hole - offset, hole=False)
                offset = hole

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`. Raises SourceShrank, SourceError."""
        rest = buffer.cast("B")
        while rest:
            try:
                count = os.preadv(self._descriptor, [rest], offset)
            except OSError as error:
                raise self._failed("read", offset, error) from error
            if count == 0:
                raise self._shrank(offset)
            offset += count
            rest = rest[count:]

    def check_size(self) -> None:
        """Raise SourceShrank if the file is shorter than when it was opened."""
        if self.is_block_device:
            return
        try:
            size_now = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise self._failed("look at", 0, error) from error
        if size_now < self._size:
            raise self._shrank(size_now)

    def close(self) -> None:
        """Close the descriptor; later reads raise SourceError. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _seek(self, offset: int, whence: int) -> int:
        """Where the next data or hole begins at or after `offset`; `size` if there is none."""
        try:
            found = os.lseek(self._descriptor, offset, whence)
        except OSError as error:
            if error.errno in _CANNOT_TELL_HOLES:
                return offset if whence == os.SEEK_DATA else self._size
            if error.errno != errno.ENXIO:
                raise self._failed("find holes of", offset, error) from error
            # ENXIO is "no more data" and also "past the end": a file cut short since it was opened
            # must not pass for one whose tail is a hole.
            self.check_size()
            return self._size
        return found

    def _failed(self, action: str, offset: int, error: OSError) -> SourceError:
        return SourceError(f"cannot {action} {self._name!r} at offset {offset}: {error.strerror}")

    def _shrank(self, offset: int) -> SourceShrank:
        return SourceShrank(
            f"{self._name!r} ended at offset {offset}; it had {self._size} bytes when it was opened"
        )
