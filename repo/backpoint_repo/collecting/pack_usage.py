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
from backpoint_repo.index_segment import PackRef
from backpoint_repo.sealed_store import SealedStore

_READ_AT_ONCE: Final = 64
_INLINE: Final = 8
"""So few directories are read faster without handing them to threads."""


def indexed_usages(sizes: Mapping[PackRef, int], live: LiveContent) -> list[PackUsage]:
    """As the index knows it, of all packs. sizes: of the objects, in bytes.

    A copy that several segments list counts once.
    """
    packs = list(sizes)
    number = {pack: at for at, pack in enumerate(packs)}
    keys, lengths, flags = _rows(live, number)
    owners = (keys >> np.uint64(32)).astype(np.int64)
    total = np.bincount(owners, lengths, len(packs))
    used = np.bincount(owners, lengths * flags, len(packs))
    return [
        PackUsage(pack, sizes[pack], int(used[at]), int(total[at] - used[at]))
        for at, pack in enumerate(packs)
    ]


def _rows(
    live: LiveContent, number: Mapping[PackRef, int]
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.bool_]]:
    """(pack number << 32 | offset, length, whether live) of each copy in these packs, once."""
    keys, lengths, flags = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)], [np.zeros(0, "?")]
    for table, alive in live.live_rows():
        own = np.array([number.get(pack, -1) for pack in table.packs], np.int64)
        owners = own[table.pack_numbers] if len(own) else np.zeros(0, np.int64)
        there = owners >= 0
        keys.append(owners[there].astype(np.uint64) << np.uint64(32) | table.offsets[there])
        lengths.append(table.lengths[there])
        flags.append(alive[there])
    joined = np.concatenate(keys), np.concatenate(lengths), np.concatenate(flags)
    if len(keys) <= 2:
        return joined
    unique, first = np.unique(joined[0], return_index=True)
    return unique, joined[1][first], joined[2][first]


def suspects(usages: Iterable[PackUsage], max_repack: int | None) -> list[PackUsage]:
    """Those that may go: all that look dead, and of those that might be copied about twice what
    may be, because some will turn out to be held."""
    dead, copied = [], list[PackUsage]()
    small: dict[Kind, list[PackUsage]] = {Kind.DATA_PACK: [], Kind.NODE_PACK: []}
    for usage in usages:
        if usage.live == 0:
            dead.append(usage)
        elif usage.sparse:
            copied.append(usage)
        elif usage.small:
            small[usage.pack.kind].append(usage)
    copied.sort(key=lambda usage: -usage.waste / usage.live)
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
    and what stands in for them.
    """

    def __init__(
        self,
        sealed: SealedStore,
        live: LiveContent,
        writers: Mapping[bytes, str],
        good: GoodCopies,
    ) -> None:
        self._sealed = sealed
        self._live = live
        self._writers = writers
        self._good = good

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
        found = replace(usage, live=used, waste=waste, keys=len(directory.data_keys))
        return replace(found, held=self._hold(source, np.flatnonzero(alive)))

    def _hold(self, source: BlobSource, alive: NDArray[np.int64]) -> str | None:
        if (writer := self._writers.get(source.directory.session)) is not None:
            return f"{writer} may be writing to it"
        if source.pack not in self._good.marks:
            return None
        ids = source.directory.ids
        marked = [row for row in alive if self._good.is_marked(source.pack, ids[row].tobytes())]
        try:
            for blob in source.read(np.array(marked, np.int64)):
                if self._good.elsewhere(source, blob, {source.pack}) is None:
                    return "a copy in it is marked as damaged and there is no good one: heal it"
        except ObjectMissing:
            return "another collector is deleting it"
        return None
