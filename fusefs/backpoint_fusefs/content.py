"""What a file's bytes come from, behind one contract: memory, a stored file, or a stored disk.

`read_cached` answers only from memory and never waits; `read` may fetch and decode and belongs on
a worker. Disks answer through the repository's ImageReader, which has this shape already.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import ChunkReader, WantedChunk
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.point import FILE_CHUNK, ConfigFile


class Content(Protocol):
    """size: bytes. Reads past the end give fewer bytes, or none."""

    size: int

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None: ...

    def read(self, offset: int, length: int) -> bytes | memoryview: ...


@runtime_checkable
class Prefetchable(Protocol):
    """Content large enough to fetch it before it is asked for."""

    def prefetch(self, offset: int, length: int) -> None: ...


class BytesContent:
    """A text that is in memory as a whole."""

    def __init__(self, text: bytes) -> None:
        self.size = len(text)
        self._text = text

    def read_cached(self, offset: int, length: int) -> bytes:
        return self._text[offset : offset + length]

    def read(self, offset: int, length: int) -> bytes:
        return self._text[offset : offset + length]


class FileContent:
    """A configuration file of a point, through the chunk cache. Thread-safe."""

    def __init__(self, file: ConfigFile, chunks: ChunkReader, cache: ChunkCache) -> None:
        """Raises ObjectDamaged where the file's chunks cannot make up its size."""
        if len(file.chunks) != -(-file.size // FILE_CHUNK):
            raise ObjectDamaged(f"the file {file.name!r} has chunks of another size")
        self.size = file.size
        self._file = file
        self._ids = file.chunks
        self._chunks = chunks
        self._cache = cache

    def read_cached(self, offset: int, length: int) -> bytes | None:
        first, ids = self._range(offset, length)
        pieces = [plain for content_id in ids if (plain := self._cache.get(content_id)) is not None]
        return self._cut(pieces, first, offset, length) if len(pieces) == len(ids) else None

    def read(self, offset: int, length: int) -> bytes:
        """Raises as `ChunkReader.read`."""
        first, ids = self._range(offset, length)

        def fetch(missing: list[int]) -> list[bytes]:
            places = self._chunks.locate([ids[at] for at in missing])
            return self._chunks.read(
                [
                    WantedChunk(ids[at], self._file.stored_length(first + at), place)
                    for at, place in zip(missing, places, strict=True)
                ]
            )

        return self._cut(self._cache.get_all(ids, fetch), first, offset, length)

    def _range(self, offset: int, length: int) -> tuple[int, tuple[bytes, ...]]:
        """Number of the first chunk of a range, and the ids of all of them."""
        first = offset // FILE_CHUNK
        end = min(offset + length, self.size)
        return first, self._ids[first : -(-end // FILE_CHUNK)]

    def _cut(self, pieces: list[bytes], first: int, offset: int, length: int) -> bytes:
        start = offset - first * FILE_CHUNK
        end = min(offset + length, self.size) - first * FILE_CHUNK
        return b"".join(pieces)[start : max(start, end)]
