"""What is live in a pack that is to go: makes sure that a pack that stays has a good copy of it.

A copy is good where this collector wrote it or has just compared its bytes with the original. Else
the blob is copied, verbatim, after its own digest was compared. Serves compaction, before a pack is
put into trash, and the sweep, before it is deleted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from backpoint_repo.collecting.blob_source import Blob, BlobSource
from backpoint_repo.collecting.live_content import LiveContent
from backpoint_repo.collecting.secured_copies import SecuredCopies
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.index import Index
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.verbatim_copy import VerbatimCopies

_SOURCES: Final = 16
"""Directories of other packs that are kept: 30 KB each, mostly."""


@dataclass(frozen=True)
class Secured:
    """Of one pack. lost: ids of live blobs that have no good copy anywhere; while there are any,
    the pack must stay. copied: bytes that were copied."""

    lost: tuple[bytes, ...] = ()
    copied: int = 0


class Rescue:
    """For one thread. What it copied counts after `flush`."""

    def __init__(
        self, sealed: SealedStore, index: Index, live: LiveContent, session: bytes
    ) -> None:
        self._sealed = sealed
        self._index = index
        self._live = live
        self._copies = VerbatimCopies(sealed, index, session)
        self._secured = SecuredCopies()
        self._sources: OrderedDict[PackRef, BlobSource | None] = OrderedDict()

    @property
    def copied(self) -> int:
        """Bytes of blobs copied so far."""
        return self._copies.stored

    def secure(self, source: BlobSource, leaving: Collection[PackRef]) -> Secured:
        """All that is live in this pack. leaving: packs that do not count, itself included.

        Raises ObjectMissing where the pack is gone, StoreUnavailable.
        """
        ids = source.directory.ids
        needed = self._live.holds(ids)
        needed[needed] = ~self._secured.hold(ids[needed], leaving)
        blobs, lost = list[Blob](), list[bytes]()
        for blob in source.read(np.flatnonzero(needed)):
            place = self._other_copy(blob, leaving)
            if place is not None:
                self._secured.add(blob.content_id, place.pack)
            elif blob.sealed is None:
                lost.append(blob.content_id)
            else:
                blobs.append(blob)
        if lost:
            return Secured(tuple(lost))
        for blob in blobs:
            self._copy(source.pack.kind, blob)
        return Secured((), sum(len(blob.sealed or b"") for blob in blobs))

    def flush(self) -> None:
        """Return when all copies are durable and indexed."""
        self._copies.flush()

    def _copy(self, kind: Kind, blob: Blob) -> None:
        assert blob.sealed is not None
        own = self._copies.add(kind, blob.content_id, blob.sealed, blob.plain_length, blob.data_key)
        self._secured.add(blob.content_id, own)

    def _other_copy(self, blob: Blob, leaving: Collection[PackRef]) -> Location | None:
        """A copy with the same sealed bytes in a pack that stays, compared now."""
        for place in self._index.copies(blob.content_id):
            if place.pack not in leaving and self._same(blob, place):
                return place
        return None

    def _same(self, blob: Blob, place: Location) -> bool:
        """The index may be forged: only what the other pack's own directory lists counts."""
        source = self._source(place.pack)
        if source is None or blob.sealed is None:
            return False
        row = source.row_at(blob.content_id, place.offset, place.length)
        if row is None:
            return False
        try:
            other = next(source.read(np.array([row])))
        except ObjectMissing:
            return False
        return other.sealed == blob.sealed

    def _source(self, pack: PackRef) -> BlobSource | None:
        if pack not in self._sources:
            try:
                self._sources[pack] = BlobSource(self._sealed, pack)
            except (ObjectMissing, ObjectDamaged, UnknownFormat):
                self._sources[pack] = None
            while len(self._sources) > _SOURCES:
                self._sources.popitem(last=False)
        return self._sources[pack]
