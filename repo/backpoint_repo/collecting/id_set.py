"""A growing set of content ids, by their first 16 bytes: 16 bytes of memory each, looked up many at
a time.

Two ids that begin alike are one to it. By accident that never happens. Who makes it happen has
listed an id that nothing has, which keeps something alive for no reason, or has found a collision
of BLAKE3 between two contents of his own. Knows nothing of what ids mean.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.map_node import Ids

Words = NDArray[np.uint64]

_PARTS: Final = 8
"""By the first bits of an id. Growing one takes a multiple of its memory for a moment."""
_SHIFT: Final = np.uint64(61)
_PENDING_MAX: Final = 1 << 20
"""Ids sorted together: one after the other they would be ten times as slow."""


class IdSet:
    """For one thread."""

    def __init__(self) -> None:
        nothing = np.zeros(0, np.uint64)
        self._parts = [(nothing, nothing)] * _PARTS
        self._pending: list[Ids] = []
        self._waiting = 0

    def __len__(self) -> int:
        self._settle()
        return sum(len(first) for first, _ in self._parts)

    def add(self, ids: Ids) -> None:
        """(m, 32); they may repeat."""
        self._pending.append(ids[:, :16].copy())
        self._waiting += len(ids)
        if self._waiting >= _PENDING_MAX:
            self._settle()

    def holds(self, ids: Ids) -> NDArray[np.bool_]:
        """(m,) which ids are in the set."""
        return self.holds_words(*words_of(ids))

    def holds_words(self, first: Words, second: Words) -> NDArray[np.bool_]:
        """`holds`, of ids given by their first two words. Fastest where they rise."""
        self._settle()
        found = np.zeros(len(first), np.bool_)
        parts = (first >> _SHIFT).astype(np.uint8)
        for number in np.flatnonzero(np.bincount(parts, minlength=_PARTS)).tolist():
            at = np.flatnonzero(parts == number)
            found[at] = _found(self._parts[number], first[at], second[at])
        return found

    def _settle(self) -> None:
        if not self._waiting:
            return
        first, second = _sorted(*words_of(np.concatenate(self._pending)))
        self._pending, self._waiting = [], 0
        borders = np.arange(1, _PARTS, dtype=np.uint64) << _SHIFT
        cuts = [0, *np.searchsorted(first, borders).tolist(), len(first)]
        for number, part in enumerate(self._parts):
            own = slice(cuts[number], cuts[number + 1])
            fresh = ~_found(part, first[own], second[own])
            if fresh.any():
                self._parts[number] = _joined(part, (first[own][fresh], second[own][fresh]))


def words_of(ids: Ids) -> tuple[Words, Words]:
    """The first two words of each id, as big-endian numbers: they are ordered as ids are."""
    words = np.ascontiguousarray(ids[:, :16]).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]


def first_of_each(ids: Ids) -> NDArray[np.int64]:
    """Indices of the first occurrence of each id, rising."""
    first, second = words_of(ids)
    order = np.lexsort((second, first))
    return np.sort(order[_starts(first[order], second[order])])


def _sorted(first: Words, second: Words) -> tuple[Words, Words]:
    """Each once, in order."""
    order = np.argsort(first)
    one, two = first[order], second[order]
    if bool(((one[1:] == one[:-1]) & (two[1:] != two[:-1])).any()):
        order = np.lexsort((second, first))
        one, two = first[order], second[order]
    starts = _starts(one, two)
    return one[starts], two[starts]


def _starts(first: Words, second: Words) -> NDArray[np.bool_]:
    """Which of a sorted list differ from the one before."""
    starts = np.ones(len(first), np.bool_)
    starts[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return starts


def _found(part: tuple[Words, Words], first: Words, second: Words) -> NDArray[np.bool_]:
    one, two = part
    if not len(one):
        return np.zeros(len(first), np.bool_)
    at = np.minimum(np.searchsorted(one, first), len(one) - 1)
    same = one[at] == first
    found: NDArray[np.bool_] = same & (two[at] == second)
    for query in np.flatnonzero(same & ~found).tolist():  # hardly ever: see above
        last = int(np.searchsorted(one, first[query], "right"))
        row = int(at[query]) + int(np.searchsorted(two[at[query] : last], second[query]))
        found[query] = row < last and two[row] == second[query]
    return found


def _joined(part: tuple[Words, Words], fresh: tuple[Words, Words]) -> tuple[Words, Words]:
    """Both are sorted, and have no id in common."""
    first = np.concatenate((part[0], fresh[0]))
    second = np.concatenate((part[1], fresh[1]))
    order = np.argsort(first, kind="stable")  # of two sorted runs: a merge
    one, two = first[order], second[order]
    if bool((one[1:] == one[:-1]).any()):
        order = np.lexsort((second, first))
        one, two = first[order], second[order]
    return one, two
