"""A file as its folder describes it in FAT and exFAT alike, and what their readers must do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

READ_ONLY = 0x01
VOLUME_LABEL = 0x08
DIRECTORY = 0x10


class FatFile(NamedTuple):
    """valid: bytes that were ever written; the rest of `size` reads as zeros. contiguous: its
    clusters lie in order, and the table does not know them."""

    attributes: int
    size: int
    valid: int
    first: int
    contiguous: bool
    atime_ns: int
    mtime_ns: int

    @property
    def directory(self) -> bool:
        return bool(self.attributes & DIRECTORY)


class FolderPiece(NamedTuple):
    """Some of a folder's bytes and where they lie on the volume; whole entries."""

    at: int
    data: bytes


class FolderFormat(Protocol):
    """How a folder's bytes tell names and files. A file is known by where its entry lies."""

    folder_size_max: int

    def names(self, pieces: Iterable[FolderPiece]) -> Iterator[tuple[bytes, int]]:
        """(name, where its entry lies)."""
        ...

    def file(self, data: bytes, start: int, at: int) -> FatFile:
        """data[start:]: the volume's bytes from `at` on, where a file's entry lies."""
        ...
