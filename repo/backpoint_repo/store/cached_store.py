"""A store whose immutable objects are read through a cache on a local disk.

Decides what is cached, in which pieces it is fetched, and that two readers share one fetch. Packs
are fetched in blocks, neighbours with one request; points, catalogues and small index segments
whole. Whether an object *exists* is never answered from the cache, except of packs: their names are
random and never used again. Everything else passes through. Whoever has to see what the store
itself has (checking, healing, collecting) must not stand on this one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Final, TypeVar

from backpoint_repo.errors import ObjectDamaged, RepositoryError, UnknownFormat
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.in_threads import in_threads
from backpoint_repo.store.block_cache import BlockCache
from backpoint_repo.store.block_file import BLOCK, Block
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail

_DATA: Final = f"{FOLDERS[Kind.DATA_PACK]}/"
_NODES: Final = f"{FOLDERS[Kind.NODE_PACK]}/"
_INDEX: Final = f"{FOLDERS[Kind.INDEX]}/"
_WHOLE: Final = (f"{FOLDERS[Kind.POINT]}/", f"{FOLDERS[Kind.CATALOG]}/", _INDEX)
_INDEX_MAX: Final = 64 << 10
"""Bytes of a segment; larger ones are kept decoded, and mapped (`segment_cache.py`)."""
_RUN_MAX: Final = 8
"""Blocks fetched with one ranged get at most."""
_WINDOW: Final = 64
"""Blocks asked for at once at most, however much is wanted."""

_DISTRUSTED_S: Final = 60.0
"""What is damaged in the store itself is not fetched anew at each reading."""
_DISTRUSTED_MAX: Final = 1024

T = TypeVar("T")
Blocks = dict[int, Block]


class CachedStore:
    """Thread-safe."""

    def __init__(self, inner: Store, cache: BlockCache, *, keeps_data: bool = True) -> None:
        """keeps_data: False for who reads data once and not again: then what is in the cache is
        used, metadata is kept, and data is not."""
        self._inner = inner
        self._cache = cache
        self._keeps_data = keeps_data
        self._lock = threading.Lock()
        self._in_flight: dict[tuple[str, int], Future[Block]] = {}
        self._distrusted: dict[str, float] = {}

    @property
    def address(self) -> str:
        return self._inner.address

    @property
    def lanes(self) -> int:
        return self._inner.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        self._inner.put(key, pieces)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._inner.delete(key)
        if _is_pack(key) or key.startswith(_WHOLE):
            self._cache.lose(key)

    def size(self, key: str) -> int:
        if _is_pack(key) and (tail := self._cache.find_tail(key, 0)) is not None:
            return tail.number * BLOCK + tail.length
        return self._inner.size(key)

    def get(self, key: str) -> bytes:
        if not key.startswith(_WHOLE):
            return self._inner.get(key)
        if (found := self._kept_whole(key)) is not None:
            return found
        data = self._inner.get(key)
        if not key.startswith(_INDEX) or len(data) <= _INDEX_MAX:
            self._cache.keep(key, 0, _cut(data, to_end=True), lasting=True)
        return data

    def get_tail(self, key: str, length: int) -> Tail:
        if not _is_pack(key):
            return self._inner.get_tail(key, length)
        tail = self._cache.find_tail(key, BLOCK)
        if tail is None:
            return self._fetch_tail(key, length)
        size = tail.number * BLOCK + tail.length
        if length <= tail.length:
            return Tail(size, tail.data[tail.length - length :])
        return Tail(size, self.get_range(key, max(0, size - length), length))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if length <= 0 or not _is_pack(key):
            return self._inner.get_range(key, offset, length)
        parts: list[bytes | memoryview] = []
        end = offset + length
        first, last = offset // BLOCK, (end - 1) // BLOCK
        for start in range(first, last + 1, _WINDOW):
            numbers = range(start, min(start + _WINDOW, last + 1))
            found = self._window(key, numbers, offset, end)
            if found is None:
                at = max(offset, start * BLOCK)
                parts.append(self._inner.get_range(key, at, end - at))
                break
            parts += found
            if len(found) < len(numbers):
                break
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def distrust(self, key: str) -> bool:
        """What was read of this object was not good: it is read from the store itself next time.
        False where the cache had no part in it, or where that was a moment ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._distrusted.get(key, -_DISTRUSTED_S) < _DISTRUSTED_S:
                return False
            self._distrusted[key] = now
            if len(self._distrusted) > _DISTRUSTED_MAX:
                del self._distrusted[next(iter(self._distrusted))]
        return self._cache.lose(key)

    def _window(
        self, key: str, numbers: range, offset: int, end: int
    ) -> Sequence[bytes | memoryview] | None:
        """Of each block what lies between `offset` and `end`; of none that the object has not.
        None where it is not here and should not be kept."""
        parts: dict[int, bytes | memoryview] = {}
        missing: list[int] = []
        lasting = not key.startswith(_DATA)
        for number in numbers:
            start, stop = _within(number, offset, end)
            part = self._cache.find(key, number, start, stop, lasting=lasting)
            if part is None:
                missing.append(number)
                continue
            if part.length or not number:
                parts[number] = part.data
            if part.last:
                break
        if missing and not (lasting or self._keeps_data):
            return None
        for number, block in self._fetch(key, missing).items():
            start, stop = _within(number, offset, end)
            if block.data:
                parts[number] = memoryview(block.data)[start:stop]
        return [parts[number] for number in sorted(parts)]

    def _fetch(self, key: str, missing: Sequence[int]) -> Blocks:
        """Blocks that are not here, each fetched by one of those who want it now."""
        mine: dict[int, Future[Block]] = {}
        others: dict[int, Future[Block]] = {}
        with self._lock:
            for number in missing:
                promise = self._in_flight.get((key, number))
                if promise is None:
                    mine[number] = self._in_flight[key, number] = Future()
                else:
                    others[number] = promise
        blocks: Blocks = {}
        try:
            self._fetch_mine(key, mine)
            blocks.update((number, promise.result()) for number, promise in mine.items())
        finally:
            with self._lock:
                for number, promise in mine.items():
                    del self._in_flight[key, number]
                    if not promise.done():
                        promise.set_exception(_Abandoned())
        for number, promise in others.items():
            try:
                blocks[number] = promise.result()
            except _Abandoned:
                blocks.update(self._fetch(key, [number]))
        return blocks

    def _fetch_mine(self, key: str, mine: dict[int, Future[Block]]) -> None:
        """Keeps each promise, or raises."""
        lasting = not key.startswith(_DATA)
        for number, promise in mine.items():
            # Somebody may have kept it between our looking for it and our promise.
            part = self._cache.find(key, number, 0, BLOCK, lasting=lasting)
            if part is not None:
                promise.set_result(Block(part.data, part.last))
        runs = plan_runs([number for number, promise in mine.items() if not promise.done()])
        jobs = [partial(self._fetch_run, key, run, mine) for run in runs]
        if len(jobs) == 1 or self.lanes == 1:
            for job in jobs:
                job()
        elif jobs:
            with closing(in_threads(jobs, threads=min(len(jobs), self.lanes))) as done:
                for _ in done:
                    pass

    def _fetch_run(self, key: str, run: range, promises: dict[int, Future[Block]]) -> None:
        wanted = len(run) * BLOCK
        try:
            data = self._inner.get_range(key, run.start * BLOCK, wanted)[:wanted]
        except RepositoryError as error:
            for number in run:
                promises[number].set_exception(error)
            raise
        blocks = _cut(data, to_end=len(data) < wanted and bool(data or not run.start))
        for at, number in enumerate(run):
            promises[number].set_result(blocks[at] if at < len(blocks) else Block(b"", last=True))
        # Promises are kept first: others need not wait for our disk.
        self._cache.keep(key, run.start, blocks, lasting=not key.startswith(_DATA))

    def _fetch_tail(self, key: str, length: int) -> Tail:
        size, data = self._inner.get_tail(key, max(length, BLOCK))
        before = size - len(data)
        first = -(-before // BLOCK)
        *whole, last = _cut(data[first * BLOCK - before :], to_end=True)
        self._cache.keep(key, first, whole, lasting=not key.startswith(_DATA))
        self._cache.keep(key, first + len(whole), [last], lasting=True)
        if len(last.data) < min(length, size):
            # The block before came in part; whoever asks for the tail again needs it whole.
            self.get_range(key, max(0, size - length), length)
        return Tail(size, data[max(0, len(data) - length) :] if length else b"")

    def _kept_whole(self, key: str) -> bytes | None:
        tail = self._cache.find_tail(key, BLOCK)
        if tail is None:
            return None
        parts = []
        for number in range(tail.number):
            part = self._cache.find(key, number, 0, BLOCK, lasting=True)
            if part is None or part.last:
                return None
            parts.append(part.data)
        return b"".join([*parts, tail.data]) if parts else tail.data


def reread(store: Store, key: str, read: Callable[[], T]) -> T:
    """What `read` makes of an object. Where that is damaged and a cache had a part in it, what it
    makes of the store's own: that may have been healed since. Raises what `read` raises."""
    try:
        return read()
    except (ObjectDamaged, UnknownFormat):
        if not (isinstance(store, CachedStore) and store.distrust(key)):
            raise
    return read()


class _Abandoned(Exception):
    """Who promised a block was stopped; it says nothing about the block."""


def plan_runs(numbers: Sequence[int]) -> list[range]:
    """Ascending numbers of blocks, as runs of neighbours of at most 8."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number and len(runs[-1]) < _RUN_MAX:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _cut(data: bytes, *, to_end: bool) -> list[Block]:
    """Bytes from the start of a block on, as blocks. to_end: the object ends with them."""
    view = memoryview(data)
    blocks = [Block(view[at : at + BLOCK], last=False) for at in range(0, len(data), BLOCK)]
    if not to_end:
        return blocks
    if blocks and len(blocks[-1].data) < BLOCK:
        return [*blocks[:-1], Block(blocks[-1].data, last=True)]
    return [*blocks, Block(b"", last=True)]


def _within(number: int, offset: int, end: int) -> tuple[int, int]:
    """Which part of a block lies between two offsets of its object."""
    return max(0, offset - number * BLOCK), min(BLOCK, end - number * BLOCK)


def _is_pack(key: str) -> bool:
    return key.startswith((_DATA, _NODES))
