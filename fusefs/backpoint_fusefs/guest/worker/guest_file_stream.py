"""A guest's file as Python's own file object, for parsers of what is inside files."""

from __future__ import annotations

import io

from backpoint_fusefs.guest.filesystem import FileId
from backpoint_fusefs.guest.worker.filesystem_service import FilesystemService


class GuestFileStream(io.RawIOBase):
    """Read-only. Raises GuestError."""

    def __init__(self, service: FilesystemService, file: FileId) -> None:
        self._service = service
        self._file = file
        self._size = service.size(file)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        content = self._service.read(*self._file, self._at, length) if length else b""
        self._at += len(content)
        return content

    def readall(self) -> bytes:
        return self.read()
