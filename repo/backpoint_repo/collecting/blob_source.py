"""The sealed blobs of one pack as its directory lists them, fetched many at a time and compared
with their digests.

A blob that differs is told, not given out. Knows no other packs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.keyring import data_key_id
from backpoint_repo.pack import PackDirectory, blob_digest
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import blob_key_id
from backpoint_repo.verbatim_copy import DataKey

_RANGE_MAX: Final = 4 << 20
_GAP_MAX: Final = 64 << 10
"""Unwanted bytes between two wanted blobs that are fetched along rather than asked around."""


@dataclass(frozen=True)
class Blob:
    """digest: of the bytes as they were stored. sealed: these bytes; None: they are not what was
    stored any more, or are sealed with a key that the pack does not list, so nobody could open
    them."""

    content_id: bytes
    digest: bytes
    plain_length: int
    sealed: bytes | None = None
    data_key: DataKey | None = None


class BlobSource:
    """Thread-safe."""

    def __init__(self, sealed: SealedStore, pack: PackRef) -> None:
        """Reads the directory. Raises ObjectMissing, ObjectDamaged, UnknownFormat."""
        self._sealed = sealed
        self.pack = pack
        self.directory: PackDirectory = sealed.directory(pack.kind, pack.name)
        self._offsets = self.directory.offsets

    def read(self, rows: NDArray[np.int64]) -> Iterator[Blob]:
        """Blobs of these rows, which rise. Raises ObjectMissing, StoreUnavailable."""
        key, store = object_key(self.pack.kind, self.pack.name.hex()), self._sealed.store
        for run in self._runs(rows.tolist()):
            start = int(self._offsets[run[0]])
            end = int(self._offsets[run[-1]]) + int(self.directory.lengths[run[-1]])
            data = memoryview(store.get_range(key, start, end - start))
            for row in run:
                at, length = int(self._offsets[row]), int(self.directory.lengths[row])
                blob = self._blob(row, data[at - start : at - start + length])
                if blob.sealed is None:
                    # A second look: memory and cables fail, too, and this decides what is kept.
                    blob = self._blob(row, memoryview(store.get_range(key, at, length)))
                yield blob

    def row_at(self, content_id: bytes, offset: int, length: int) -> int | None:
        """The row of a blob that must lie there; None where the directory knows of none."""
        row = int(np.searchsorted(self._offsets, offset))
        if row >= len(self._offsets) or int(self._offsets[row]) != offset:
            return None
        same = int(self.directory.lengths[row]) == length
        return row if same and self.directory.ids[row].tobytes() == content_id else None

    def digest_at(self, content_id: bytes, offset: int, length: int) -> bytes | None:
        """What the directory promises of a blob that must lie there; None as `row_at`."""
        row = self.row_at(content_id, offset, length)
        return None if row is None else self.directory.digests[row].tobytes()

    def data_key_of(self, data: bytes | memoryview) -> DataKey | None:
        """The key that a blob of this pack names; None where the pack does not list it."""
        try:
            key_id = blob_key_id(data)
        except ObjectDamaged:
            return None
        sealed_key = self.directory.data_keys.get(key_id)
        listed = sealed_key is not None and data_key_id(sealed_key) == key_id
        return (key_id, sealed_key) if sealed_key is not None and listed else None

    def _blob(self, row: int, data: memoryview) -> Blob:
        """A blob as read; one that is not what was stored, without its bytes."""
        directory = self.directory
        blob = Blob(
            directory.ids[row].tobytes(),
            directory.digests[row].tobytes(),
            int(directory.plain_lengths[row]),
        )
        if blob_digest(data) != blob.digest:
            return blob
        if self.pack.kind is Kind.NODE_PACK:
            return replace(blob, sealed=bytes(data))
        data_key = self.data_key_of(data)
        return blob if data_key is None else replace(blob, sealed=bytes(data), data_key=data_key)

    def _runs(self, rows: list[int]) -> Iterator[list[int]]:
        """Rows grouped so that each group is one ranged get."""
        run: list[int] = []
        for row in rows:
            if run:
                gap = int(self._offsets[row]) - self._end(run[-1])
                span = self._end(row) - int(self._offsets[run[0]])
                if gap > _GAP_MAX or span > _RANGE_MAX:
                    yield run
                    run = []
            run.append(row)
        if run:
            yield run

    def _end(self, row: int) -> int:
        return int(self._offsets[row]) + int(self.directory.lengths[row])
