"""The sealed blobs of one pack as its directory lists them, fetched many at a time and compared
with their digests.

A blob that differs is told, not given out. Knows no other packs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    """row: in the directory. sealed: its bytes, as they were stored; None: they are not that any
    more, or no owner could open them."""

    row: int
    content_id: bytes
    sealed: bytes | None
    plain_length: int
    data_key: DataKey | None


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
        for run in self._runs(rows.tolist()):
            start = int(self._offsets[run[0]])
            end = int(self._offsets[run[-1]]) + int(self.directory.lengths[run[-1]])
            key = object_key(self.pack.kind, self.pack.name.hex())
            data = memoryview(self._sealed.store.get_range(key, start, end - start))
            for row in run:
                at = int(self._offsets[row]) - start
                yield self._blob(row, data[at : at + int(self.directory.lengths[row])])

    def row_at(self, content_id: bytes, offset: int, length: int) -> int | None:
        """The row of a blob that must lie there; None where the directory knows of none."""
        row = int(np.searchsorted(self._offsets, offset))
        if row >= len(self._offsets) or int(self._offsets[row]) != offset:
            return None
        same = int(self.directory.lengths[row]) == length
        return row if same and self.directory.ids[row].tobytes() == content_id else None

    def _blob(self, row: int, data: memoryview) -> Blob:
        directory = self.directory
        content_id = directory.ids[row].tobytes()
        plain_length = int(directory.plain_lengths[row])
        damaged = Blob(row, content_id, None, plain_length, None)
        if blob_digest(data) != directory.digests[row].tobytes():
            return damaged
        if self.pack.kind is Kind.NODE_PACK:
            return Blob(row, content_id, bytes(data), plain_length, None)
        try:
            key_id = blob_key_id(data)
        except ObjectDamaged:
            return damaged
        sealed_key = directory.data_keys.get(key_id)
        if sealed_key is None or data_key_id(sealed_key) != key_id:
            return damaged
        return Blob(row, content_id, bytes(data), plain_length, (key_id, sealed_key))

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
