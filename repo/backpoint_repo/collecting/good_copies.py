"""Is there a copy of a blob in another pack that can be relied on instead of this one?

Only where its bytes are compared now: with the blob's own; or, where those are spoiled or marked as
damaged, with the digest that was taken of them, or by opening the copy, if the credential can. The
index may be forged, so the other pack's directory must list the copy. Copies nothing itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np

from backpoint_repo.chunk_reader import ChunkReader
from backpoint_repo.collecting.blob_source import Blob, BlobSource
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.index import Index
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.map_node import Ids
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.sealed_store import SealedStore

Marks = Mapping[PackRef, frozenset[bytes]]
"""Content ids of the copies of a pack that are marked as damaged."""

_SOURCES: Final = 16
"""Directories of other packs that are kept: 30 KB each, mostly."""


class GoodCopies:
    """For one thread."""

    def __init__(
        self, sealed: SealedStore, index: Index, nodes: NodeReader, chunks: ChunkReader
    ) -> None:
        self._sealed = sealed
        self._index = index
        self._nodes = nodes
        self._chunks = chunks
        self._sources: OrderedDict[PackRef, BlobSource | None] = OrderedDict()
        self.marks: Marks = {}

    def is_marked(self, pack: PackRef, content_id: bytes) -> bool:
        """Whether this copy is marked as damaged."""
        return content_id in self.marks.get(pack, ())

    def any_twice(self, ids: Ids) -> bool:
        """False where the index knows no other copy of any of these, which are indexed once."""
        return sum(len(table.find_all(ids)) for table in self._index.tables()) > len(ids)

    def elsewhere(
        self, source: BlobSource, blob: Blob, leaving: Collection[PackRef]
    ) -> PackRef | None:
        """A pack that holds a good copy, none of `leaving`. Raises StoreUnavailable."""
        doubtful = blob.sealed is None or self.is_marked(source.pack, blob.content_id)
        for place in self._index.copies(blob.content_id):
            if place.pack in leaving or self.is_marked(place.pack, blob.content_id):
                continue
            other = self._read(blob.content_id, place)
            if other is None:
                continue
            if blob.sealed == other.sealed or (
                doubtful and (blob.digest == other.digest or self._opens(blob, place))
            ):
                return place.pack
        return None

    def _read(self, content_id: bytes, place: Location) -> Blob | None:
        """A copy that is listed where the index has it, and is what was stored; else None."""
        source = self._source(place.pack)
        row = source and source.row_at(content_id, place.offset, place.length)
        if source is None or row is None:
            return None
        try:
            found = next(source.read(np.array([row])))
        except ObjectMissing:
            return None
        return None if found.sealed is None else found

    def _opens(self, blob: Blob, place: Location) -> bool:
        """Whether the copy holds the very content; never, where that cannot be told."""
        try:
            if place.pack.kind is Kind.NODE_PACK:
                self._nodes.load_from(blob.content_id, place)
            elif self._sealed.keyring.owner_private is None:
                return False
            else:
                self._chunks.read_copy(blob.content_id, blob.plain_length, place)
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            return False
        return True

    def _source(self, pack: PackRef) -> BlobSource | None:
        if pack not in self._sources:
            try:
                self._sources[pack] = BlobSource(self._sealed, pack)
            except (ObjectMissing, ObjectDamaged, UnknownFormat):
                self._sources[pack] = None
            while len(self._sources) > _SOURCES:
                self._sources.popitem(last=False)
        return self._sources[pack]
