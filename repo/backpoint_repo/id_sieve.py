"""Which ids are certainly in no table: a Bloom filter over all of them.

Without it a backup of new data would search every table for each chunk, and pull in all of a mapped
index. Four bits for each entry, all in one word of 64, placed by the first eight bytes of its id:
ids are keyed hashes, and so evenly spread. With eight to sixteen bits for each entry 97 to 99 of
100 new chunks are told here. May say "perhaps" of anything; never "no" of an id that a table has.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Final
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.index_segment import IndexTable, prefixes_of
from backpoint_repo.map_node import Ids

_WORD: Final = 64
_ENTRIES: Final = 8
"""Entries that share a word, at most: a byte of memory for each."""
_BITS: Final = (0, 6, 12, 18)
"""Where in a prefix the places of an entry's four bits stand, six binary digits each."""
_WORDS_MIN: Final = 1 << 10
_PIECE: Final = 1 << 18


class IdSieve:
    """Thread-safe. Grows by tables; what is taken away later stays a "perhaps"."""

    def __init__(self, tables: Collection[IndexTable]) -> None:
        entries = sum(map(len, tables))
        words = max(1 << (entries // _ENTRIES).bit_length(), _WORDS_MIN)
        self._words = np.zeros(words, np.uint64)
        self._shift = np.uint64(_WORD - (words.bit_length() - 1))
        self._room = words * _ENTRIES - entries
        self._lock = threading.Lock()
        self._tables = WeakSet[IndexTable]()
        self._take_in(tables)

    def covers(self, tables: Collection[IndexTable]) -> bool:
        """Take in those tables that are new. False where they are too many to tell anything."""
        with self._lock:
            fresh = [table for table in tables if table not in self._tables]
            self._room -= sum(map(len, fresh))
            if self._room < 0:
                return False
            self._take_in(fresh)
            return True

    def may_hold(self, ids: Ids) -> NDArray[np.bool_]:
        """(m,) which ids some table may have."""
        prefixes = prefixes_of(ids)
        marks = _marks(prefixes)
        held: NDArray[np.bool_] = self._words[self._words_of(prefixes)] & marks == marks
        return held

    def _take_in(self, tables: Collection[IndexTable]) -> None:
        for table in tables:
            for start in range(0, len(table), _PIECE):
                prefixes = table.prefixes[start : start + _PIECE]
                np.bitwise_or.at(self._words, self._words_of(prefixes), _marks(prefixes))
            table.let_go()
            self._tables.add(table)

    def _words_of(self, prefixes: NDArray[np.uint64]) -> NDArray[np.intp]:
        return (prefixes >> self._shift).astype(np.intp)


def _marks(prefixes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(m,) the four bits of each entry."""
    marks = np.zeros(len(prefixes), np.uint64)
    for at in _BITS:
        place = (prefixes >> np.uint64(at)) & np.uint64(_WORD - 1)
        marks |= np.left_shift(np.uint64(1), place)
    return marks
