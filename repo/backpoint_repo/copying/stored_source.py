"""A stored disk as something to be backed up: an `ImageSource` over a reader of its repository.

Decides what is fetched ahead: what was asked for by `extents` will be read in that order, so that
where each request waits for a network many are under way; memory stays bounded all the same. Knows
nothing of where the bytes go.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Final

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    SourceError,
    UnknownFormat,
)
from backpoint_repo.format import LEAF_SIZE
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.source.contract import Extent

CACHE_BYTES: Final = 32 << 20
"""For chunks that several reads share: parts of a few, on every thread that reads."""
AHEAD_BYTES: Final = 64 << 20
"""Fetched or on their way, and read by nobody yet: they need room in the cache, too."""
_UNIT: Final = 4 << 20
"""Bytes one request of the read-ahead is for, and one piece of a read: one ranged get, mostly."""
_RANGES_MAX: Final = 512
"""Ranges of one request at most: blocks that are scattered but were stored together."""


class StoredSource:
    """Thread-safe as `ImageSource` asks. To be read while its point is leased."""

    def __init__(
        self, name: str, key: str, reader: ImageReader, fetchers: Executor | None = None
    ) -> None:
        """name: what the disk was read from once, which its copy keeps. key: the disk's.
        fetchers: threads that fetch ahead; None where that does not pay off."""
        self.name = name
        self._key = key
        self.size = reader.size
        self._reader = reader
        self._ahead = ReadAhead(reader, fetchers) if fetchers else None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """As the map says. Raises SourceError where it has gaps, and StoreUnavailable."""
        waiting, ahead = deque[Extent](), 0
        with _damage_told(self._key, offset, length):
            for found in self._by_leaf(offset, offset + length):
                if self._ahead is None:
                    yield found
                    continue
                waiting.append(found)
                if not found.hole:
                    self._ahead.expect(found.offset, found.length)
                    ahead += found.length
                # What is read ahead of must be known before it is asked for.
                while ahead > AHEAD_BYTES:
                    told = waiting.popleft()
                    ahead -= 0 if told.hole else told.length
                    yield told
        yield from waiting

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Raises SourceError where chunks are damaged or lost, and StoreUnavailable."""
        for at in range(0, len(buffer), _UNIT):
            piece = buffer[at : at + _UNIT]
            if self._ahead:
                self._ahead.pass_to(offset + at + len(piece))
            with _damage_told(self._key, offset + at, len(piece)):
                piece[:] = self._reader.read(offset + at, len(piece))

    def close(self) -> None:
        """Nothing more is fetched ahead."""
        if self._ahead:
            self._ahead.stop()

    def _by_leaf(self, offset: int, end: int) -> Iterator[Extent]:
        """Never more than a leaf at once: of a disk without holes the whole map would be read
        before anything is known of its beginning."""
        while offset < end:
            stop = min(end, (offset // LEAF_SIZE + 1) * LEAF_SIZE)
            for found in self._reader.stretches(offset, stop - offset):
                yield Extent(found.offset, found.length, hole=not found.data)
            offset = stop


class ReadAhead:
    """What will be read, in disk order, and how much of it is on its way. Thread-safe."""

    def __init__(self, reader: ImageReader, fetchers: Executor) -> None:
        self._reader = reader
        self._fetchers = fetchers
        self._lock = threading.Lock()
        self._expected: deque[tuple[int, int]] = deque()
        self._begun: deque[tuple[int, int]] = deque()
        """Of each request on its way or done: where it ends on the disk, and its bytes."""
        self._ahead = 0
        self._stopped = False

    def expect(self, offset: int, length: int) -> None:
        """This will be read, after what was announced before."""
        with self._lock:
            for at in range(offset, offset + length, _UNIT):
                self._expected.append((at, min(_UNIT, offset + length - at)))
            self._top_up()

    def pass_to(self, end: int) -> None:
        """Somebody reads up to here: what lies before needs no more room."""
        with self._lock:
            while self._begun and self._begun[0][0] <= end:
                self._ahead -= self._begun.popleft()[1]
            self._top_up()

    def stop(self) -> None:
        """No more requests."""
        with self._lock:
            self._stopped = True

    def _top_up(self) -> None:
        while not self._stopped and self._expected and self._ahead < AHEAD_BYTES:
            ranges = [self._expected.popleft()]
            size = ranges[0][1]
            while self._expected and len(ranges) < _RANGES_MAX:
                if size + self._expected[0][1] > _UNIT:
                    break
                ranges.append(self._expected.popleft())
                size += ranges[-1][1]
            self._begun.append((sum(ranges[-1]), size))
            self._ahead += size
            self._fetchers.submit(self._fetch, ranges)

    def _fetch(self, ranges: list[tuple[int, int]]) -> None:
        if not self._stopped:
            try:
                self._reader.prefetch_all(ranges)
            except RepositoryError:
                return  # whoever reads it will meet it, and say so


@contextmanager
def _damage_told(key: str, offset: int, length: int) -> Iterator[None]:
    """A store that is away is no fault of the disk: it passes as it is."""
    try:
        yield
    except (ObjectDamaged, ObjectMissing, UnknownFormat) as error:
        where = f"{key}: bytes {offset} to {offset + length} cannot be read"
        raise SourceError(f"{where}: {error}") from error
