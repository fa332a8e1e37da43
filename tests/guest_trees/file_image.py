"""A volume that is (a part of) a file, as parsers want to read it."""

from __future__ import annotations

import os
from pathlib import Path


class FileImage:
    """size: bytes from `start` on; None: to the file's end. Counts what is read."""

    def __init__(self, path: Path, start: int = 0, size: int | None = None) -> None:
        self._file = path.open("rb")
        self._start = start
        self.size = path.stat().st_size - start if size is None else size
        self.reads = 0
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end."""
        length = max(0, min(length, self.size - offset))
        self.reads += 1
        self.bytes_read += length
        return os.pread(self._file.fileno(), length, self._start + offset)

    def close(self) -> None:
        self._file.close()
