"""A disk or file of a point in some repository, seen as a source that may be read from.

Turns what a repository says of damage into what a source says, because that is what it is for who
reads from it. Knows nothing of what the bytes are wanted for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backpoint_repo.errors import RepositoryError, SourceError
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.source.contract import Extent


class PointDisk:
    """An `ImageSource` of a stored disk."""

    def __init__(self, name: str, reader: ImageReader) -> None:
        self.name = name
        self.size = reader.size
        self._reader = reader

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """As its map says. Raises SourceError."""
        with _as_source(self.name):
            for found in self._reader.stretches(offset, length):
                yield Extent(found.offset, found.length, hole=not found.data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Raises SourceError."""
        with _as_source(self.name):
            buffer[:] = self._reader.read(offset, len(buffer))

    def close(self) -> None:
        """Nothing is held."""


class FileContent:
    """An `ImageSource` of a small file in memory."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data."""
        yield Extent(offset, length, hole=False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """A copy of the bytes there."""
        buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def _as_source(name: str) -> Iterator[None]:
    try:
        yield
    except RepositoryError as error:
        raise SourceError(f"{name}: {error}") from error
