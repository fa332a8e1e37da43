"""Where every chunk and map node is: all index segments of a repository as a few sorted tables.

Look-ups come in batches. Which copies may be answered is decided here: none in trash, none marked
damaged, and none in a pack that is gone when a writer asks. Writes segments for new packs; also for
packs that no segment lists: a crash came first, or their segment is lost. Readers, who write
nothing, know such packs from their directories alone. What becomes of many segments is decided in
`segment_merge.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.directory_tables import PackTable, batches, table_of_directory
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.exclusions import Exclusions
from backpoint_repo.format import FOLDERS, HOLE, Kind
from backpoint_repo.id_sieve import IdSieve
from backpoint_repo.index_segment import (
    IndexTable,
    Location,
    PackRef,
    build_table,
    merge_tables,
    prefixes_of,
)
from backpoint_repo.map_node import Ids
from backpoint_repo.pack_standing import PackStanding
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.segment_cache import SegmentCache
from backpoint_repo.segment_shelf import LoadedTable, SegmentShelf

SEGMENT_ENTRIES_MAX: Final = 1 << 19
"""A segment of 23 MB. Opening one takes three times as much for a moment, merging eight times."""
_LET_GO_AFTER: Final = 1 << 13
"""Look-ups after which mapped tables are let go of: the kernel maps 64 KiB around each touch."""
_PIECE: Final = 1 << 16
_View = list[tuple[IndexTable, NDArray[np.bool_]]]


class Index:
    """Thread-safe. Grows by `refresh` (other writers' segments) and `add` (our own)."""

    def __init__(self, sealed: SealedStore, cache: SegmentCache | None = None) -> None:
        """cache: where large segments are kept on this machine; without it, in memory."""
        self._sealed = sealed
        self.shelf = SegmentShelf(sealed, cache)
        self._lock = threading.Lock()
        self._exclusions = Exclusions()
        self._standing = PackStanding()
        self._view_of: tuple[LoadedTable, ...] | None = None
        self._view: _View = []
        self._losses: tuple[_View, bool] | None = None
        self._sieve = IdSieve([])
        self._learned: dict[PackRef, IndexTable] = {}
        self._unreadable_packs: set[PackRef] = set()
        self._looked_up = 0

    def fork(self) -> Index:
        """Another view of what is known now, with exclusions of its own; tables are shared. For a
        session beside others: one that looked at trash earlier must not undo what another knows."""
        other = Index(self._sealed)
        other.shelf = self.shelf.fork()
        with self._lock:
            other._sieve = self._sieve
            other._standing = self._standing.copy()
            other._learned = dict(self._learned)
            other._unreadable_packs = set(self._unreadable_packs)
        return other

    @property
    def broken_segments(self) -> list[str]:
        """What is wrong with segments that could not be read, a sentence each."""
        return self.shelf.broken

    def refresh(self) -> None:
        """Load segments that are new since the last call; forget those that were merged. What a
        damaged one indexed can still be found through `learn_unlisted_packs`."""
        self.shelf.refresh()

    @property
    def exclusions(self) -> Exclusions:
        """What `known` does not answer at present."""
        return self._exclusions

    def exclude(self, exclusions: Exclusions) -> None:
        """From now on `known` answers no copy that these forbid."""
        with self._lock:
            self._exclusions = exclusions
            self._view_of = None

    def known(self, ids: Ids) -> NDArray[np.bool_]:
        """(m,) which ids have a copy that a new point may refer to."""
        view, exclusions = self._viewed()
        perhaps = np.flatnonzero(self._sieve.may_hold(ids))
        # In order: neighbours share what the processor has cached.
        rows = perhaps[np.argsort(prefixes_of(ids[perhaps]))]
        found = np.zeros(len(ids), np.bool_)
        for table, usable in view:
            rows = rows[~found[rows]]
            found[rows] = table.find(ids[rows], usable) >= 0
        if exclusions.damaged_ids:
            for row in np.flatnonzero(found):
                content_id = ids[row].tobytes()
                if content_id in exclusions.damaged_ids:
                    found[row] = self._has_good_copy(content_id)
        self._count(len(ids))
        return found

    def locate(self, ids: Ids) -> list[Location | None]:
        """A place of each id; None for holes and ids that no segment knows."""
        places: list[Location | None] = [None] * len(ids)
        open_rows = np.flatnonzero(ids.any(axis=1))
        for table in self.tables():
            rows = table.find(ids[open_rows], np.ones(len(table.packs), np.bool_))
            for query, row in zip(open_rows[rows >= 0], rows[rows >= 0], strict=True):
                places[query] = table.location(int(row))
            open_rows = open_rows[rows < 0]
        self._count(len(ids))
        return places

    def copies(self, content_id: bytes) -> list[Location]:
        """Every place of an id; those that no new point may refer to come last."""
        found = (
            table.location(row) for table in self.tables() for row in table.rows_of(content_id)
        )
        return sorted(dict.fromkeys(found), key=lambda place: not self._is_good(content_id, place))

    def has_losses(self) -> bool:
        """Whether some id has no copy left that a new point may refer to: all are marked damaged,
        in trash, or in packs that are gone or short. Costs little where every copy is good."""
        view, exclusions = self._viewed()
        if self._losses is None or self._losses[0] is not view:
            damaged = ids_of(list(exclusions.damaged_ids))
            lost = not self.known(damaged).all() or any(self._loses(*part) for part in view)
            self._losses = view, lost
        return self._losses[1]

    def _loses(self, table: IndexTable, usable: NDArray[np.bool_]) -> bool:
        rows = np.flatnonzero(~usable[table.pack_numbers]) if not usable.all() else np.array([])
        pieces = (rows[start : start + _PIECE] for start in range(0, len(rows), _PIECE))
        return any(not self.known(table.ids(piece)).all() for piece in pieces)

    def search(self, content_id: bytes) -> Iterator[Location]:
        """`copies`; when those do not serve, what was indexed since, because a collector may have
        moved it; then what no segment lists, because that collector may have died before it wrote
        one."""
        known = self.copies(content_id)
        yield from known
        self.refresh()
        newer = [place for place in self.copies(content_id) if place not in known]
        yield from newer
        if self.learn_unlisted_packs() or not known:
            tried = {*known, *newer}
            yield from (place for place in self.copies(content_id) if place not in tried)

    def add(self, entries: Iterable[tuple[bytes, Location]]) -> None:
        """Write a segment for blobs whose packs are durable, and know them from now on."""
        rows = list(entries)
        with self._lock:
            self._standing.own({place.pack for _, place in rows})
            self._view_of = None
        for start in range(0, len(rows), SEGMENT_ENTRIES_MAX):
            self.shelf.put(_table_of(rows[start : start + SEGMENT_ENTRIES_MAX]))

    def packs(self) -> set[PackRef]:
        """Every pack that a loaded segment lists."""
        return {pack for table in self.tables() for pack in table.packs}

    def tables(self) -> list[IndexTable]:
        """The loaded tables, for statistics and checks."""
        return [part.table for part in self.shelf.loaded]

    def learn_unlisted_packs(self) -> int:
        """Know the packs that no segment lists from their directories; writes nothing.

        Returns how many were learned now. Packs whose directory is damaged are left alone. Costs a
        listing of all packs: for ids that nobody knows.
        """
        fresh = dict(self._unlisted(stored_packs(self._sealed)))
        with self._lock:
            self._learned.update(fresh)
        self.shelf.hold(fresh.values())
        return len(fresh)

    def adopt_unlisted_packs(self) -> int:
        """Index packs that no segment lists (their writer died, or is not done yet).

        From now on `known` answers only what lies in packs that are there now, none shorter than
        what is listed in it, or in packs that are added. A writer calls it after it has read the
        trash. Returns how many packs were indexed.
        """
        sizes = dict(pack_sizes(self._sealed))
        with self._lock:
            learned = [PackTable(*found) for found in self._learned.items()]
        adopted = 0
        for batch in batches(chain(learned, self._unlisted(sizes)), SEGMENT_ENTRIES_MAX):
            self.shelf.put(merge_tables([table for _, table in batch]))
            adopted += len(batch)
            # Not before it is written: what failed must be listed by the next try.
            with self._lock:
                for pack, _ in batch:
                    self._learned.pop(pack, None)
        self.shelf.drop_held()
        self._stand_on(sizes)
        return adopted

    def notice_missing_packs(self) -> None:
        """As `adopt_unlisted_packs` does, and writes nothing. Costs a listing of all packs."""
        self._stand_on(dict(pack_sizes(self._sealed)))

    def _unlisted(self, stored: Iterable[PackRef]) -> Iterator[PackTable]:
        listed = self.packs() | self._unreadable_packs
        for pack in stored:
            if pack in listed:
                continue
            try:
                directory = self._sealed.directory(pack.kind, pack.name)
                yield PackTable(pack, table_of_directory(pack, directory))
            except ObjectMissing:
                continue
            except (ObjectDamaged, UnknownFormat):
                self._unreadable_packs.add(pack)

    def _stand_on(self, sizes: dict[PackRef, int]) -> None:
        with self._lock:
            self._standing = self._standing.relisted(sizes)
            self._view_of = None

    def _viewed(self) -> tuple[_View, Exclusions]:
        """All tables with (packs,) which of their packs may be answered."""
        with self._lock:
            loaded = self.shelf.loaded
            if self._view_of is not loaded:
                tables = [part.table for part in loaded]
                excluded = self._exclusions.trashed
                masks = self._standing.masks(tables, excluded)
                if not self._sieve.covers(tables):
                    self._sieve = IdSieve(tables)
                self._view = list(zip(tables, masks, strict=True))
                self._view_of = loaded
            return self._view, self._exclusions

    def _has_good_copy(self, content_id: bytes) -> bool:
        return any(self._is_good(content_id, place) for place in self.copies(content_id))

    def _is_good(self, content_id: bytes, place: Location) -> bool:
        """Whether a new point may refer to this copy."""
        exclusions = self._exclusions
        return (
            place.pack not in exclusions.trashed
            and (content_id, place.pack) not in exclusions.damaged
            and self._standing.stands(place.pack)
        )

    def _count(self, ids: int) -> None:
        self._looked_up += ids
        if self._looked_up >= _LET_GO_AFTER:
            self._looked_up = 0
            for table in self.tables():
                table.let_go()


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
