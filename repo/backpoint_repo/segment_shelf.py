"""Index segments as they are loaded: which ones, mapped from this machine's cache or in memory.

Keeps up with writers who add segments and others who merge them, and keeps tables few. Decides
nothing about which entries are believed.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import FOLDERS, Kind, object_key
from backpoint_repo.index_segment import IndexTable, decode_table, merge_tables
from backpoint_repo.process_tuning import give_back_freed
from backpoint_repo.sealed_store import SealedStore, tried
from backpoint_repo.segment_cache import SegmentCache

_MERGED_MAX: Final = 1 << 16
"""Entries of a table that is still merged with others in memory: 3 MB."""
_SMALL: Final = 1 << 20
"""Stored bytes of a segment that is read beside others, where that pays off."""
_TRIES: Final = 20
"""Readings of the list while others merge segments under it, which takes them longer than this."""
_NAME: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class LoadedTable:
    """segments: the names of those it was made of; none where it is of packs in no segment."""

    segments: frozenset[str]
    table: IndexTable


class SegmentShelf:
    """Thread-safe."""

    def __init__(self, sealed: SealedStore, cache: SegmentCache | None) -> None:
        """cache: where large segments are kept on this machine; without it they are in memory."""
        self._sealed = sealed
        self._cache = cache
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._loaded: tuple[LoadedTable, ...] = ()
        self._names: set[str] = set()
        self._broken: dict[str, str] = {}

    def fork(self) -> SegmentShelf:
        """Another one with the same tables."""
        other = SegmentShelf(self._sealed, self._cache)
        with self._lock:
            other._loaded = self._loaded
            other._names = set(self._names)
            other._broken = dict(self._broken)
        return other

    @property
    def loaded(self) -> tuple[LoadedTable, ...]:
        """All tables, the largest first; the same object until something changes."""
        return self._loaded

    @property
    def broken(self) -> list[str]:
        """What is wrong with segments that could not be read, a sentence each."""
        return list(self._broken.values())

    @property
    def count(self) -> int:
        """How many segments were read."""
        return len(self._names)

    def refresh(self) -> None:
        """Load segments that are new since the last call; forget those that are gone.

        Nobody deletes a segment before all it says is in another, so where a listed one is gone
        when it is read, the list is read again.
        """
        with self._refreshing:
            known = set(self._names)
            kept_here = self._cache.names() if self._cache else set()
            fresh: dict[str, IndexTable] = {}
            for _ in range(_TRIES):
                sizes = segment_sizes(self._sealed)
                listed = set(sizes)
                wanted = (listed - self._names) | self._joined_with(known - listed)
                if self._read_all(wanted - fresh.keys(), sizes, fresh) and self._swap(
                    known - listed, fresh
                ):
                    break
            else:
                self._swap(set(), fresh)  # nothing is forgotten, and the next call goes on
                return
            if self._cache:
                self._cache.drop(kept_here - listed)
            if any(table.mapping for table in fresh.values()):
                give_back_freed()

    def read(self, name: str) -> IndexTable:
        """One segment. Raises ObjectMissing, ObjectDamaged, UnknownFormat."""
        if self._cache and (mapped := self._cache.find(name)) is not None:
            return _decoded(name, mapped)
        payload = self._sealed.get(Kind.INDEX, name)
        table = _decoded(name, payload)
        return self._mapped(name, payload) or table

    def put(self, table: IndexTable) -> None:
        """Write a segment, and have it loaded."""
        payload = table.encode()
        name = _put(self._sealed, payload)
        with self._lock:
            self._names.add(name)
        self._add([LoadedTable(frozenset({name}), self._mapped(name, payload) or table)])

    def hold(self, tables: Iterable[IndexTable]) -> None:
        """Have tables loaded that no segment has."""
        self._add([LoadedTable(frozenset(), table) for table in tables])

    def drop_held(self) -> None:
        """Undo `hold`: by now segments say the same."""
        with self._lock:
            self._loaded = tuple(part for part in self._loaded if part.segments)

    def _read_all(
        self, names: set[str], sizes: Mapping[str, int], into: dict[str, IndexTable]
    ) -> bool:
        """False where one of them is gone."""
        complete = True
        wanted = sorted(names - self._broken.keys())
        # Opening a large one takes three times its size for a moment: those come one by one.
        small = [name for name in wanted if sizes.get(name, 0) <= _SMALL]
        large = ((name, tried(name, self.read)) for name in wanted if name not in small)
        for name, found in chain(self._sealed.each(small, self.read), large):
            if isinstance(found, IndexTable):
                into[name] = found
            elif isinstance(found, ObjectMissing):
                complete = False
            elif isinstance(found, (ObjectDamaged, UnknownFormat)):
                self._broken[name] = str(found)
            else:
                raise found
        return complete

    def _swap(self, gone: set[str], fresh: dict[str, IndexTable]) -> bool:
        """At one go, so that nobody who looks meanwhile misses an entry. False, and nothing is
        done, where more has to be read first."""
        with self._lock:
            if self._joined_with(gone) - fresh.keys():
                return False
            kept = [part for part in self._loaded if not part.segments & gone]
            added = fresh.keys() - {name for part in kept for name in part.segments}
            parts = (LoadedTable(frozenset({name}), fresh[name]) for name in sorted(added))
            if added or len(kept) < len(self._loaded):
                self._loaded = _joined([*kept, *parts])
            self._broken = {name: why for name, why in self._broken.items() if name not in gone}
            self._names = (self._names - gone) | fresh.keys() | self._broken.keys()
            return True

    def _joined_with(self, gone: set[str]) -> set[str]:
        """Segments that stay, and are in one table with some that are gone."""
        parts = (part.segments for part in self._loaded if part.segments & gone)
        return set[str]().union(*parts) - gone

    def _add(self, fresh: list[LoadedTable]) -> None:
        with self._lock:
            if fresh:
                self._loaded = _joined([*self._loaded, *fresh])

    def _mapped(self, name: str, payload: bytes) -> IndexTable | None:
        mapped = self._cache.keep(name, payload) if self._cache else None
        return None if mapped is None else _decoded(name, mapped)


def segment_sizes(sealed: SealedStore) -> dict[str, int]:
    """Every segment there is, by name, and its bytes as stored.

    Two listings: while one runs, the parts of a merger may go before it comes to them, and what
    they were merged into come where it has been.
    """
    folder = f"{FOLDERS[Kind.INDEX]}/"
    found = [*sealed.store.list(folder), *sealed.store.list(folder)]
    sizes = {key.removeprefix(folder): size for key, size in found}
    return {name: size for name, size in sizes.items() if _NAME.fullmatch(name)}


def put_segment(sealed: SealedStore, table: IndexTable) -> str:
    """Write a segment; its name."""
    return _put(sealed, table.encode())


def _put(sealed: SealedStore, payload: bytes) -> str:
    name = secrets.token_hex(16)
    sealed.put(Kind.INDEX, name, payload)
    return name


def _decoded(name: str, payload: bytes | memoryview) -> IndexTable:
    table = decode_table(payload, object_key(Kind.INDEX, name))
    table.let_go()
    return table


def _joined(parts: list[LoadedTable]) -> tuple[LoadedTable, ...]:
    """Small neighbours in memory are merged, as in an LSM tree; what is mapped stays so."""
    large = [part for part in parts if _is_large(part.table)]
    for held in (False, True):
        small = [p for p in parts if not _is_large(p.table) and held is not bool(p.segments)]
        small.sort(key=_size, reverse=True)
        while len(small) > 1 and _size(small[-2]) < 4 * _size(small[-1]) + 1024:
            one, two = small.pop(), small.pop()
            merged = LoadedTable(one.segments | two.segments, merge_tables([one.table, two.table]))
            (large if _is_large(merged.table) else small).append(merged)
            small.sort(key=_size, reverse=True)
        large += small
    return tuple(sorted(large, key=_size, reverse=True))


def _is_large(table: IndexTable) -> bool:
    return table.mapping is not None or len(table) > _MERGED_MAX


def _size(part: LoadedTable) -> int:
    return len(part.table)
