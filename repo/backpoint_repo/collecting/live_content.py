"""Which content is needed by a point or a pin.

An id is *entered* when its children, as a map node, are being looked up; whatever else is found is
*marked*. Two sets, because whoever lists a node among a point's chunks must not thereby hide what
lies under it. Both are live. Knows no points and no packs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.collecting.id_set import IdSet, first_of_each, words_of
from backpoint_repo.index_segment import IndexTable
from backpoint_repo.map_node import Ids

_ROWS_AT_ONCE: Final = 1 << 18


class LiveContent:
    """For one thread. 16 bytes for each id that is live."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing is live."""
        self._marked, self._entered = IdSet(), IdSet()

    def mark(self, ids: Ids) -> None:
        """These are live. Ids may repeat, and holes are passed over."""
        self._marked.add(ids[ids.any(axis=1)])

    def enter(self, ids: Ids) -> NDArray[np.int64]:
        """Indices of the ids that were not entered before, each id once; no holes."""
        wanted = first_of_each(ids)
        wanted = wanted[ids[wanted].any(axis=1)]
        fresh = wanted[~self._entered.holds(ids[wanted])]
        self._entered.add(ids[fresh])
        return fresh

    def holds(self, ids: Ids) -> NDArray[np.bool_]:
        """(m,) which ids are live."""
        return self._marked.holds(ids) | self._entered.holds(ids)

    def rows(self, table: IndexTable) -> NDArray[np.bool_]:
        """(n,) which rows of an index table are live."""
        live = np.zeros(len(table), np.bool_)
        for start in range(0, len(table), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            words = words_of(table.ids(piece))
            live[piece] = self._marked.holds_words(*words) | self._entered.holds_words(*words)
        return live

    def size(self, tables: Iterable[IndexTable]) -> int:
        """Bytes of all live blobs, as the index knows them."""
        return sum(int(table.lengths[self.rows(table)].sum(dtype=np.int64)) for table in tables)
