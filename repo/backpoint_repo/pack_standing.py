"""Which packs a writer may rely on: those of one listing, whole, and those it wrote itself.

An index segment may name packs that were deleted long ago, also one that is loaded late, because
somebody merged it out of stale ones. So what counts is not what is missing but what was seen.
Knows nothing of trash and damage marks (`exclusions.py`), and makes no listing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.index_segment import IndexTable, PackRef


class PackStanding:
    """For one thread at a time. Before it was given a listing every pack is believed in."""

    def __init__(self, sizes: Mapping[PackRef, int] | None = None) -> None:
        """sizes: every pack there is and its bytes; not to be changed by anybody from now on."""
        self._sizes = sizes
        self._own: set[PackRef] = set()
        self._inherited: set[PackRef] = set()
        self._short: set[PackRef] = set()
        self._measured: set[IndexTable] = set()

    def copy(self) -> PackStanding:
        """One that goes its own way from here. Own packs are believed in until it is given a
        listing: no lease protects them from then on that it knows of."""
        other = PackStanding(self._sizes)
        other._inherited, other._short = self._own | self._inherited, set(self._short)
        other._measured = set(self._measured)
        return other

    def relisted(self, sizes: Mapping[PackRef, int]) -> PackStanding:
        """With a newer listing; own packs stay own."""
        other = PackStanding(sizes)
        other._own = set(self._own)
        return other

    def own(self, packs: Collection[PackRef]) -> None:
        """These were written by who asks, and are durable."""
        self._own.update(packs)

    def stands(self, pack: PackRef) -> bool:
        """Whether one pack does, as far as the tables say that were asked for so far."""
        if self._sizes is None or pack in self._own or pack in self._inherited:
            return True
        return pack in self._sizes and pack not in self._short

    def masks(
        self, tables: Sequence[IndexTable], excluded: Collection[PackRef]
    ) -> list[NDArray[np.bool_]]:
        """For each table (packs,) which of its packs stand and are not excluded."""
        if self._sizes is not None:
            for table in set(tables) - self._measured:
                self._measure(table, self._sizes)
            self._measured = set(tables)
        return [
            np.array([self.stands(pack) and pack not in excluded for pack in table.packs], np.bool_)
            for table in tables
        ]

    def _measure(self, table: IndexTable, sizes: Mapping[PackRef, int]) -> None:
        """Note packs that are shorter than what a table places in them: such a pack has lost its
        end, and with it the keys of all its blobs."""
        there = np.array([sizes.get(pack, -1) for pack in table.packs], np.int64)
        for number in np.flatnonzero((there >= 0) & (table.pack_ends() > there)).tolist():
            self._short.add(table.packs[number])
        table.let_go()
