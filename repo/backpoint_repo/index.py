"""Where every chunk and map node is: all index segments of a repository as a few sorted tables.

Look-ups come in batches. Which copies may be answered is decided here: none in trash and none
marked damaged when a writer asks. Writes segments for new packs; also for packs that no segment
lists: a crash came first, or their segment is lost. Readers, who write nothing, know such packs
from their directories alone.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.exclusions import Exclusions
from backpoint_repo.format import FOLDERS, HOLE, Kind
from backpoint_repo.index_segment import (
    IndexTable,
    Location,
    PackRef,
    build_table,
    decode_table,
    merge_tables,
)
from backpoint_repo.map_node import Ids
from backpoint_repo.pack import PackDirectory
from backpoint_repo.sealed_store import SealedStore

SEGMENT_ENTRIES_MAX: Final = 1 << 20
"""A segment of 46 MB: what a reader must hold while it opens one."""
_NOTHING: Final = Exclusions()


class Index:
    """Thread-safe. Grows by `refresh` (other writers' segments) and `add` (our own)."""

    def __init__(self, sealed: SealedStore) -> None:
        self._sealed = sealed
        self._lock = threading.Lock()
        self._loaded: set[str] = set()
        self._tables: list[IndexTable] = []
        self._exclusions = _NOTHING
        self._missing: frozenset[PackRef] = frozenset()
        self._usable: dict[int, NDArray[np.bool_]] = {}
        self._learned: dict[PackRef, IndexTable] = {}
        self._unreadable_packs: set[PackRef] = set()
        self.broken_segments: list[str] = []

    def fork(self) -> Index:
        """Another view of what is known now, with exclusions of its own; tables are shared.

        For a session beside others: what one says of trash must not be undone by another that
        looked earlier.
        """
        other = Index(self._sealed)
        with self._lock:
            other._tables = self._tables
            other._missing = self._missing
            other._learned = dict(self._learned)
            other._loaded = set(self._loaded)
            other._unreadable_packs = set(self._unreadable_packs)
            other.broken_segments = list(self.broken_segments)
        return other

    def refresh(self) -> None:
        """Load segments that are new since the last call.

        A damaged segment is remembered in `broken_segments` and its entries are not known; what
        it indexed can still be found through `learn_unlisted_packs`.
        """
        fresh = []
        for name in self._sealed.names(Kind.INDEX):
            if name in self._loaded:
                continue
            try:
                key = f"index/{name}"
                fresh.append(decode_table(self._sealed.get(Kind.INDEX, name), key))
            except ObjectMissing:
                continue  # merged into another segment between listing and reading
            except (ObjectDamaged, UnknownFormat) as error:
                self.broken_segments.append(str(error))
            self._loaded.add(name)
        self._append(fresh)

    @property
    def exclusions(self) -> Exclusions:
        """What `known` does not answer at present."""
        return self._exclusions

    def exclude(self, exclusions: Exclusions) -> None:
        """From now on `known` answers no copy that these forbid."""
        with self._lock:
            self._exclusions = exclusions
            self._usable = {}

    def known(self, ids: Ids) -> NDArray[np.bool_]:
        """(m,) which ids have a copy that a new point may refer to."""
        with self._lock:
            tables, exclusions = self._tables, self._exclusions
            usable = [self._usable_packs(table) for table in tables]
        found = np.zeros(len(ids), np.bool_)
        for table, allowed in zip(tables, usable, strict=True):
            open_rows = np.flatnonzero(~found)
            found[open_rows] = table.find(ids[open_rows], allowed) >= 0
        if exclusions.damaged_ids:
            for row in np.flatnonzero(found):
                content_id = ids[row].tobytes()
                if content_id in exclusions.damaged_ids:
                    found[row] = self._has_good_copy(content_id, exclusions)
        return found

    def locate(self, ids: Ids) -> list[Location | None]:
        """A place of each id; None for holes and ids that no segment knows."""
        places: list[Location | None] = [None] * len(ids)
        open_rows = np.flatnonzero(ids.any(axis=1))
        for table in list(self._tables):
            rows = table.find(ids[open_rows], np.ones(len(table.packs), np.bool_))
            for query, row in zip(open_rows[rows >= 0], rows[rows >= 0], strict=True):
                places[query] = table.location(int(row))
            open_rows = open_rows[rows < 0]
        return places

    def copies(self, content_id: bytes) -> list[Location]:
        """Every place of an id; those in trash or marked damaged come last."""
        found = [
            table.location(row) for table in list(self._tables) for row in table.rows_of(content_id)
        ]
        bad = self._exclusions
        return sorted(
            dict.fromkeys(found),
            key=lambda place: place.pack in bad.trashed or (content_id, place.pack) in bad.damaged,
        )

    def lost_ids(self) -> set[bytes]:
        """Ids whose every copy is marked damaged, in trash, or in a pack that is gone or short."""
        ids = set(self._exclusions.damaged_ids)
        for table in list(self._tables):
            gone = np.array([pack in self._missing for pack in table.packs], np.bool_)
            if gone.any():
                ids.update(row.tobytes() for row in table.ids(gone[table.pack_numbers]))
        suspects = list(ids)
        known = self.known(ids_of(suspects)).tolist()
        return {content_id for content_id, good in zip(suspects, known, strict=True) if not good}

    def search(self, content_id: bytes) -> Iterator[Location]:
        """`copies`; when those do not serve, what was indexed since, because a collector may have
        moved it; for an id that nobody knows also what no segment lists."""
        known = self.copies(content_id)
        yield from known
        self.refresh()
        newer = [place for place in self.copies(content_id) if place not in known]
        yield from newer
        if not known and not newer:
            self.learn_unlisted_packs()
            yield from self.copies(content_id)

    def add(self, entries: Iterable[tuple[bytes, Location]]) -> None:
        """Write a segment for blobs whose packs are durable, and know them from now on."""
        rows = list(entries)
        for start in range(0, len(rows), SEGMENT_ENTRIES_MAX):
            self._write(_table_of(rows[start : start + SEGMENT_ENTRIES_MAX]))

    def packs(self) -> set[PackRef]:
        """Every pack that a loaded segment lists."""
        return {pack for table in list(self._tables) for pack in table.packs}

    def tables(self) -> list[IndexTable]:
        """The loaded tables, for statistics and checks."""
        return list(self._tables)

    def learn_unlisted_packs(self) -> int:
        """Know the packs that no segment lists from their directories; writes nothing.

        Returns how many were learned now. Packs whose directory is damaged are left alone. Costs a
        listing of all packs: for ids that nobody knows.
        """
        return self._learn(stored_packs(self._sealed))

    def _learn(self, stored: Iterable[PackRef]) -> int:
        listed, fresh = self.packs() | self._unreadable_packs, dict[PackRef, IndexTable]()
        for pack in stored:
            if pack in listed:
                continue
            try:
                directory = self._sealed.directory(pack.kind, pack.name)
            except ObjectMissing:
                continue
            except (ObjectDamaged, UnknownFormat):
                self._unreadable_packs.add(pack)
                continue
            fresh[pack] = table_of_directory(pack, directory)
        with self._lock:
            self._learned.update(fresh)
        self._append(list(fresh.values()))
        return len(fresh)

    def adopt_unlisted_packs(self) -> int:
        """Index packs that no segment lists (their writer died, or is not done yet).

        Also notices listed packs that are gone, or shorter than what is listed in them: `known`
        answers none of their chunks any more. Returns how many packs were indexed.
        """
        listed = self.packs()
        sizes = dict(pack_sizes(self._sealed))
        self._learn(sizes)
        with self._lock:
            learned = dict(self._learned)
        for tables in _batches(list(learned.values())):
            self._put(merge_tables(tables))
        # Not before all are written: what failed in between must be listed by the next try.
        with self._lock:
            self._learned = {}
        self._notice_missing(listed, sizes)
        return len(learned)

    def notice_missing_packs(self) -> None:
        """As `adopt_unlisted_packs` does, and writes nothing. Costs a listing of all packs."""
        self._notice_missing(self.packs(), dict(pack_sizes(self._sealed)))

    def _notice_missing(self, listed: set[PackRef], sizes: dict[PackRef, int]) -> None:
        short = {pack for pack, end in self._ends() if end > sizes.get(pack, end)}
        with self._lock:
            self._missing = frozenset(short | (listed - sizes.keys()))
            self._usable = {}

    def _ends(self) -> Iterator[tuple[PackRef, int]]:
        """How many bytes each listed pack must have at least."""
        for table in list(self._tables):
            ends = np.zeros(len(table.packs), np.int64)
            np.maximum.at(ends, table.pack_numbers, table.offsets.astype(np.int64) + table.lengths)
            yield from zip(table.packs, ends.tolist(), strict=True)

    def _write(self, table: IndexTable) -> None:
        self._put(table)
        self._append([table])

    def _put(self, table: IndexTable) -> None:
        name = secrets.token_hex(16)
        self._sealed.put(Kind.INDEX, name, table.encode())
        self._loaded.add(name)

    def _append(self, fresh: list[IndexTable]) -> None:
        """Keep few tables: neighbours of similar size are merged, as in an LSM tree."""
        if not fresh:
            return
        with self._lock:
            tables = sorted([*self._tables, *fresh], key=len, reverse=True)
            while len(tables) > 1 and len(tables[-2]) < 4 * len(tables[-1]) + 1024:
                smallest = [tables.pop(), tables.pop()]
                tables.append(merge_tables(smallest))
                tables.sort(key=len, reverse=True)
            self._tables = tables
            self._usable = {}

    def _usable_packs(self, table: IndexTable) -> NDArray[np.bool_]:
        mask = self._usable.get(id(table))
        if mask is None:
            unusable = self._exclusions.trashed | self._missing
            mask = np.array([pack not in unusable for pack in table.packs], np.bool_)
            self._usable[id(table)] = mask
        return mask

    def _has_good_copy(self, content_id: bytes, exclusions: Exclusions) -> bool:
        return any(
            place.pack not in exclusions.trashed
            and (content_id, place.pack) not in exclusions.damaged
            for place in self.copies(content_id)
        )


def stored_packs(sealed: SealedStore) -> Iterator[PackRef]:
    """Every pack in the store, indexed or not; names that are not ours are passed over."""
    return (pack for pack, _ in pack_sizes(sealed))


def pack_sizes(sealed: SealedStore) -> Iterator[tuple[PackRef, int]]:
    """As `stored_packs`, with the bytes of each."""
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        for key, size in sealed.store.list(f"{FOLDERS[kind]}/"):
            name = key.rpartition("/")[2]
            if len(name) == 32 and all(digit in "0123456789abcdef" for digit in name):
                yield PackRef(kind, bytes.fromhex(name)), size


def _batches(tables: list[IndexTable]) -> Iterator[list[IndexTable]]:
    """Tables of packs, as many at a time as fit into one segment."""
    batch: list[IndexTable] = []
    entries = 0
    for table in tables:
        if batch and entries + len(table) > SEGMENT_ENTRIES_MAX:
            yield batch
            batch, entries = [], 0
        batch.append(table)
        entries += len(table)
    if batch:
        yield batch


def table_of_directory(pack: PackRef, directory: PackDirectory) -> IndexTable:
    """The index entries that a pack's directory implies."""
    return build_table(
        [pack],
        directory.ids,
        np.zeros(len(directory.ids), np.uint32),
        directory.offsets.astype(np.uint32),
        directory.lengths,
    )


def ids_of(rows: list[bytes]) -> Ids:
    """(m, 32) from a list of ids."""
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, len(HOLE))


def _table_of(rows: list[tuple[bytes, Location]]) -> IndexTable:
    packs = list(dict.fromkeys(place.pack for _, place in rows))
    number = {pack: at for at, pack in enumerate(packs)}
    return build_table(
        packs,
        ids_of([content_id for content_id, _ in rows]),
        np.array([number[place.pack] for _, place in rows], np.uint32),
        np.array([place.offset for _, place in rows], np.uint32),
        np.array([place.length for _, place in rows], np.uint32),
    )
