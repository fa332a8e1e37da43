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
from typing import Final, TypeVar

from backpoint_repo.errors import ObjectDamaged, UnknownFormat
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.store.block_cache import BlockCache
from backpoint_repo.store.block_fetch import BlockFetch, cut_blocks
from backpoint_repo.store.block_file import BLOCK
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail

_DATA: Final = f"{FOLDERS[Kind.DATA_PACK]}/"
_NODES: Final = f"{FOLDERS[Kind.NODE_PACK]}/"
_INDEX: Final = f"{FOLDERS[Kind.INDEX]}/"
_WHOLE: Final = (f"{FOLDERS[Kind.POINT]}/", f"{FOLDERS[Kind.CATALOG]}/", _INDEX)
_INDEX_MAX: Final = 64 << 10
"""Bytes of a segment; larger ones are kept decoded, and mapped (`segment_cache.py`)."""
_WINDOW: Final = 64
"""Blocks asked for at once at most, however much is wanted."""

_DISTRUSTED_S: Final = 60.0
"""What is damaged in the store itself is not fetched anew at each reading."""
_DISTRUSTED_MAX: Final = 1024

T = TypeVar("T")


class CachedStore:
    """Thread-safe."""

    def __init__(self, inner: Store, cache: BlockCache, *, keeps_data: bool = True) -> None:
        """keeps_data: False for who reads data once and not again: then what is in the cache is
        used, metadata is kept, and data is not."""
        self._inner = inner
        self._cache = cache
        self._fetch = BlockFetch(inner, cache)
        self._keeps_data = keeps_data
        self._lock = threading.Lock()
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
            self._fetch.lose(key)

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
            self._cache.keep(key, 0, cut_blocks(data, to_end=True), lasting=True)
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
        return self._fetch.lose(key)

    def settle(self) -> None:
        """Wait until all that was fetched is kept, or given up."""
        self._fetch.settle()

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
        for number, block in self._fetch.fetch(key, missing, lasting=lasting).items():
            start, stop = _within(number, offset, end)
            if block.data:
                parts[number] = memoryview(block.data)[start:stop]
        return [parts[number] for number in sorted(parts)]

    def _fetch_tail(self, key: str, length: int) -> Tail:
        size, data = self._inner.get_tail(key, max(length, BLOCK))
        before = size - len(data)
        first = -(-before // BLOCK)
        *whole, last = cut_blocks(data[first * BLOCK - before :], to_end=True)
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


def beneath(store: Store) -> Store:
    """The store itself, for a look that no cache may answer: whether an object still stands."""
    return store._inner if isinstance(store, CachedStore) else store


def settle(store: Store) -> None:
    """Wait until what was fetched is in the cache of the store, if it has one: before the process
    ends at once."""
    if isinstance(store, CachedStore):
        store.settle()


def _within(number: int, offset: int, end: int) -> tuple[int, int]:
    """Which part of a block lies between two offsets of its object."""
    return max(0, offset - number * BLOCK), min(BLOCK, end - number * BLOCK)


def _is_pack(key: str) -> bool:
    return key.startswith((_DATA, _NODES))
