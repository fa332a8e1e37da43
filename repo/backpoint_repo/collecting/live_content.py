"""Which content is needed by a point or a pin: two bits for each row of the index.

An id is *live* once something refers to it, and *entered* once its children, as a map node, have
been looked up too: separate, because whoever lists a node among a point's chunks must not thereby
hide what lies under it. An id is found through the first row that each table has of it; what is in
no table is kept aside. Knows no points and no packs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.errors import RepositoryError
from backpoint_repo.format import ID_SIZE
from backpoint_repo.index_segment import IndexTable
from backpoint_repo.map_node import Ids

UNPLACED_MAX: Final = 1 << 20
"""Ids in no table that are kept, 150 MB. More than that means that the index is not worth having,
or that somebody wants our memory."""
_BATCH: Final = 1 << 18
_LIVE: Final = 1
_ENTERED: Final = 2


class LiveContent:
    """For one thread."""

    def __init__(self, tables: Sequence[IndexTable] = ()) -> None:
        self._parts = [_Part(table) for table in tables]
        self._unplaced: dict[bytes, int] = {}

    def mark(self, ids: Ids) -> None:
        """These are live. Ids may repeat, and holes are passed over. Raises RepositoryError where
        too many are in no table."""
        self._flag(ids[ids.any(axis=1)], _LIVE)

    def enter(self, ids: Ids) -> NDArray[np.int64]:
        """Indices of the ids that were not entered before, each id once; all are live from now on.
        Raises as `mark`."""
        wanted = _first_of_each(ids)
        fresh = wanted[~self._has(ids[wanted], _ENTERED)]
        self._flag(ids[fresh], _LIVE | _ENTERED)
        return fresh

    def holds(self, ids: Ids) -> NDArray[np.bool_]:
        """(m,) which ids are live."""
        return self._has(ids, _LIVE)

    def forget(self) -> None:
        """Nothing is live."""
        self._parts = [_Part(part.table) for part in self._parts]
        self._unplaced = {}

    @property
    def size(self) -> int:
        """Bytes of all live blobs, as the index knows them."""
        return sum(
            int(table.lengths[alive].sum(dtype=np.int64)) for table, alive in self.live_rows()
        )

    def rebase(self, tables: Sequence[IndexTable]) -> None:
        """Go over to other tables, which may know other ids, and fewer."""
        old, kept = self._parts, {id(part.table): part for part in self._parts}
        parts = [kept.get(id(table)) or _Part(table) for table in tables]
        fresh = [part for part in parts if id(part.table) not in kept]
        stays = {id(part.table) for part in parts}
        self._parts = parts
        for part in old:
            for ids, flags in part.flagged():
                if id(part.table) in stays:
                    for other in fresh:
                        other.flag(ids, flags)
                else:
                    self._flag(ids, flags)
        unplaced, self._unplaced = self._unplaced, {}
        for content_id, flag in unplaced.items():
            self._flag(np.frombuffer(content_id, np.uint8).reshape(1, ID_SIZE), flag)

    def live_rows(self) -> Iterator[tuple[IndexTable, NDArray[np.bool_]]]:
        """Every table with which of its rows are live: all copies of an id alike."""
        for part in self._parts:
            yield part.table, part.live_rows()

    def _flag(self, ids: Ids, flags: NDArray[np.uint8] | int) -> None:
        found = np.zeros(len(ids), np.bool_)
        for part in self._parts:
            found |= part.flag(ids, flags)
        if found.all():
            return
        each = np.broadcast_to(np.asarray(flags, np.uint8), len(ids))
        for at in np.flatnonzero(~found).tolist():
            content_id = ids[at].tobytes()
            self._unplaced[content_id] = self._unplaced.get(content_id, 0) | int(each[at])
        if len(self._unplaced) > UNPLACED_MAX:
            raise RepositoryError(
                f"more than {UNPLACED_MAX} chunks that points need are in no index segment; run "
                "rebuild-index and check before anything is collected"
            )

    def _has(self, ids: Ids, flag: int) -> NDArray[np.bool_]:
        found = np.zeros(len(ids), np.bool_)
        for part in self._parts:
            found |= part.has(ids, flag)
        if self._unplaced:
            for at in np.flatnonzero(~found).tolist():
                found[at] = bool(self._unplaced.get(ids[at].tobytes(), 0) & flag)
        return found


class _Part:
    """One table with the flags of its rows; only the first row of an id is ever looked at."""

    def __init__(self, table: IndexTable) -> None:
        self.table = table
        self._flags = np.zeros(len(table), np.uint8)
        self._any_pack = np.ones(len(table.packs), np.bool_)

    def flag(self, ids: Ids, flags: NDArray[np.uint8] | int) -> NDArray[np.bool_]:
        """(m,) which ids are in the table."""
        rows = self.table.find(ids, self._any_pack)
        found = rows >= 0
        each = np.broadcast_to(np.asarray(flags, np.uint8), len(ids))
        np.bitwise_or.at(self._flags, rows[found], each[found])
        return found

    def has(self, ids: Ids, flag: int) -> NDArray[np.bool_]:
        """(m,) which ids are in the table with this flag."""
        rows = self.table.find(ids, self._any_pack)
        found = rows >= 0
        found[found] = self._flags[rows[found]] & flag != 0
        return found

    def flagged(self) -> Iterator[tuple[Ids, NDArray[np.uint8]]]:
        """Ids that have any flag, with their flags, in batches."""
        rows = np.flatnonzero(self._flags)
        for at in range(0, len(rows), _BATCH):
            batch = rows[at : at + _BATCH]
            yield self.table.ids(batch), self._flags[batch]

    def live_rows(self) -> NDArray[np.bool_]:
        """(n,) which rows are live; what the first row of an id says goes for its other rows."""
        live: NDArray[np.bool_] = self._flags & _LIVE != 0
        same = np.flatnonzero(self.table.prefixes[1:] == self.table.prefixes[:-1]) + 1
        same = same[(self.table.rests[same] == self.table.rests[same - 1]).all(axis=1)]
        for row in same.tolist():  # rising, so a run of copies hands its first row's flag on
            live[row] = live[row - 1]
        return live


def _first_of_each(ids: Ids) -> NDArray[np.int64]:
    """Indices of the first occurrence of each id that is no hole, rising."""
    whole = np.ascontiguousarray(ids).view(f"V{ID_SIZE}").reshape(-1)
    first = np.unique(whole, return_index=True)[1]
    return np.sort(first[ids[first].any(axis=1)])
