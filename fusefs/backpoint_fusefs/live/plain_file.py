"""A file of a session that is kept as a plain file: what was copied from the point or made since.

A node without a file is an empty one. Decides how few descriptors are open at a time, and that what
a sync failed to write is never called written.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.overlay.data_file import DataFile
from backpoint_repo.durable_file import fsync_folder

_OPEN_MAX: Final = 128
"""Descriptors kept; the usual limit of a process is 1024, and a mad guest makes 100,000 files."""
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK: Final = 512


class OpenFiles:
    """The descriptors of one session's plain files, opened when touched. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, DataFile] = OrderedDict()

    def kept(self, path: Path) -> DataFile | None:
        """If it is open. Never waits."""
        with self._lock:
            found = self._files.get(path)
            if found is not None:
                self._files.move_to_end(path)
            return found

    def get(self, path: Path, *, create: bool = False) -> DataFile | None:
        """None where there is no such file. Raises OSError."""
        if found := self.kept(path):
            return found
        try:
            descriptor = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            return None
        opened = DataFile(path, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "is no plain file", str(path))
        opened.forget_cached()
        with self._lock:
            opened = self._files.setdefault(path, opened)
            while len(self._files) > _OPEN_MAX:
                self._files.popitem(last=False)
            return opened

    def close(self, path: Path | None = None) -> None:
        """One, or all of them; whoever is using one goes on with it."""
        with self._lock:
            if path is None:
                self._files.clear()
            else:
                self._files.pop(path, None)


class PlainFile:
    """A `LiveFile`."""

    def __init__(self, path: Path, open_files: OpenFiles) -> None:
        self.path = path
        self._open_files = open_files
        self._syncing = threading.Lock()
        found = self._stat()
        # A process that was killed may have left what is in memory only.
        self._dirty = found is not None and stat.S_ISREG(found.st_mode)
        self._named = False
        self._lost: OSError | None = None

    @property
    def size(self) -> int:
        found = self._stat()
        return found.st_size if found else 0

    @property
    def allocated(self) -> int:
        found = self._stat()
        return found.st_blocks * _BLOCK if found else 0

    def read_cached(self, offset: int, length: int) -> bytes | None:
        file = self._open_files.kept(self.path)
        if file is None:
            return None
        length = min(length, file.length - offset)
        if length <= 0:
            return b""
        data = bytearray(length)
        return bytes(data) if file.read_into_cached(offset, memoryview(data)) else None

    def read(self, offset: int, length: int) -> bytes:
        file = self._open_files.get(self.path)
        length = min(length, file.length - offset) if file else 0
        return file.read(offset, length) if file and length > 0 else b""

    def write_at_once(self, offset: int, data: bytes | memoryview) -> bool:
        """Small files are written rarely: never."""
        return False

    def write(self, offset: int, data: bytes | memoryview) -> None:
        file = self._for_writing()
        view = memoryview(data)
        try:
            while len(view):
                done = file.write(offset, [view])
                offset, view = offset + done, view[done:]
        finally:
            self._dirty = True

    def zero(self, offset: int, length: int) -> None:
        """Zeros that take no room; the file does not get longer."""
        length = min(length, self.size - offset)
        if length > 0:
            self._for_writing().zero(offset, length)
            self._dirty = True

    def resize(self, size: int) -> None:
        self._for_writing().truncate(size)
        self._dirty = True
        self.sync()

    def sync(self) -> None:
        """Raises OSError again and again once something was lost: trying again means nothing."""
        with self._syncing:
            if self._lost is not None:
                raise OSError(self._lost.errno, self._lost.strerror, str(self.path))
            if not self._dirty:
                return
            self._dirty = False
            file = self._open_files.get(self.path)
            if file is None:
                return  # it was unlinked meanwhile, and has no content any more
            try:
                file.sync()
                if not self._named:
                    fsync_folder(self.path.parent)
                    self._named = True
            except OSError as error:
                self._lost = error
                raise

    def _for_writing(self) -> DataFile:
        file = self._open_files.get(self.path, create=True)
        assert file is not None
        return file

    def _stat(self) -> os.stat_result | None:
        try:
            return os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return None
