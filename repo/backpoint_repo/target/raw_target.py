"""A disk as a sparse raw file: holes are never written, so they take no space.

Decides only how bytes get into the file; how it gets its name is for `staged_file.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from backpoint_repo.target.contract import Content
from backpoint_repo.target.staged_file import StagedFile


class RawFileTarget:
    """`ImageTarget` of a new file of exactly `size` bytes."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises UsageError where `path` exists or has no folder, TargetError."""
        self._file = StagedFile(path)
        try:
            os.ftruncate(self._file.descriptor, size)
        except OSError as error:
            self._file.discard()
            raise self._file.failed("create", error) from error

    def write_at(self, offset: int, data: Content) -> None:
        """Raises TargetError."""
        try:
            pwrite_all(self._file.descriptor, offset, data)
        except OSError as error:
            raise self._file.failed(f"write at offset {offset} of", error) from error

    def zero_at(self, offset: int, length: int) -> None:
        """Nothing: the file began as one hole."""

    def finish(self) -> None:
        """Raises UsageError, TargetError."""
        self._file.publish()

    def withdraw(self) -> None:
        """Remove the finished file again. Raises nothing."""
        self._file.withdraw()

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._file.discard()


def pwrite_all(descriptor: int, offset: int, data: Content) -> None:
    """All of `data`, also where the kernel takes it in parts. Raises OSError."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + count, rest[count:]
