"""How much of each pack is live, and what forbids to touch it.

The index says it for all packs at once; it may be incomplete or forged, so whatever looks as if it
could go is judged by its own directory, read now. Decides nothing about what goes (`plan.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.collecting.blob_source import BlobSource
from backpoint_repo.collecting.good_copies import GoodCopies
from backpoint_repo.collecting.live_content import LiveContent
from backpoint_repo.collecting.plan import PackUsage, worth_merging
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import IndexTable, PackRef
from backpoint_repo.sealed_store import SealedStore

_READ_AT_ONCE: Final = 64
_INLINE: Final = 8
"""So few directories are read faster without handing them to threads."""


def indexed_usages(
    sizes: Mapping[PackRef, int], tables: Iterable[IndexTable], live: LiveContent
) -> list[PackUsage]:
    """As the index knows it, of all packs. sizes: of the objects, in bytes."""
    packs = list(sizes)
    number = {pack: at for at, pack in enumerate(packs)}
    total, used = np.zeros(len(packs)), np.zeros(len(packs))
    for table in tables:
        own = np.array([number.get(pack, -1) for pack in table.packs], np.int64)
        if not len(own):
            continue
        for sums, lengths in ((total, table.lengths), (used, table.lengths * live.rows(table))):
            by_pack = np.bincount(table.pack_numbers, lengths, len(own))
            np.add.at(sums, own[own >= 0], by_pack[own >= 0])
    # What several segments list was counted several times: the share is right all the same.
    most = np.fromiter(sizes.values(), np.float64, len(sizes))
    share = np.minimum(1.0, most / np.maximum(total, 1.0))
    return [
        PackUsage(pack, sizes[pack], int(np.ceil(live_size)), int(waste))
        for pack, live_size, waste in zip(packs, used * share, (total - used) * share, strict=True)
    ]


def suspects(usages: Iterable[PackUsage], max_repack: int | None) -> list[PackUsage]:
    """Those that may go: all that look dead, and of those that might be copied about twice what
    may be, because some will turn out to be held."""
    dead, stranded, copied = [], list[PackUsage](), list[PackUsage]()
    small: dict[Kind, list[PackUsage]] = {Kind.DATA_PACK: [], Kind.NODE_PACK: []}
    for usage in usages:
        if usage.live == 0:
            dead.append(usage)
        elif usage.stranded:
            stranded.append(usage)
        elif usage.sparse:
            copied.append(usage)
        elif usage.small:
            small[usage.pack.kind].append(usage)
    copied.sort(key=lambda usage: -usage.waste / usage.live)
    copied = stranded + copied
    copied += [usage for crowd in small.values() if worth_merging(crowd) for usage in crowd]
    if max_repack is not None:
        before = np.cumsum([0, *(usage.live for usage in copied)])[: len(copied)]
        copied = [
            usage for usage, sum_ in zip(copied, before, strict=True) if sum_ <= 2 * max_repack
        ]
    return dead + copied


class Inspection:
    """Judges packs by their own directories.

    writers: session -> who, of those that have a lease. good: which copies are marked as damaged,
    and what stands in for them, in no pack that is `trashed`.
    """

    def __init__(
        self,
        sealed: SealedStore,
        live: LiveContent,
        writers: Mapping[bytes, str],
        good: GoodCopies,
        trashed: frozenset[PackRef],
    ) -> None:
        self._sealed = sealed
        self._live = live
        self._writers = writers
        self._good = good
        self._trashed = trashed

    def exact(self, usages: Sequence[PackUsage], advance: Callable[[int], None]) -> list[PackUsage]:
        """The same packs, but for those that are gone by now. Raises StoreUnavailable."""
        found = []
        with ThreadPoolExecutor(os.cpu_count() or 1, "directories") as workers:
            for at in range(0, len(usages), _READ_AT_ONCE):
                batch = usages[at : at + _READ_AT_ONCE]
                run = map if len(batch) <= _INLINE else workers.map
                sources = list(run(self._source, batch))
                for usage, source in zip(batch, sources, strict=True):
                    if source is not None:
                        found.append(self._judged(usage, source))
                advance(len(batch))
        return found

    def _source(self, usage: PackUsage) -> BlobSource | str | None:
        """On a worker thread. None: the pack is gone; text: why its directory cannot be read."""
        try:
            return BlobSource(self._sealed, usage.pack)
        except ObjectMissing:
            return None
        except (ObjectDamaged, UnknownFormat) as error:
            return str(error)

    def _judged(self, usage: PackUsage, source: BlobSource | str) -> PackUsage:
        if isinstance(source, str):
            return replace(usage, held=f"what it holds is not known: {source}")
        directory = source.directory
        alive = self._live.holds(directory.ids)
        used = int(directory.lengths[alive].sum(dtype=np.int64))
        waste = int(directory.lengths.sum(dtype=np.int64)) - used
        held = self._hold(source, np.flatnonzero(alive))
        keys = len(directory.data_keys)
        return replace(usage, live=used, waste=waste, keys=keys, judged=True, held=held)

    def _hold(self, source: BlobSource, alive: NDArray[np.int64]) -> str | None:
        if (writer := self._writers.get(source.directory.session)) is not None:
            return f"{writer} may be writing to it"
        if source.pack not in self._good.marks:
            return None
        ids, leaving = source.directory.ids, self._trashed | {source.pack}
        marked = [row for row in alive if self._good.is_marked(source.pack, ids[row].tobytes())]
        try:
            for blob in source.read(np.array(marked, np.int64)):
                if self._good.elsewhere(source, blob, leaving) is None:
                    return "a copy in it is marked as damaged and there is no good one: heal it"
        except ObjectMissing:
            return "another collector is deleting it"
        return None
