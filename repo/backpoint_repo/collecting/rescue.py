"""What is live in a pack that is to go: makes sure that a pack that stays has a good copy of it.

A copy is good where this collector wrote it or `GoodCopies` vouches for it. Else the blob is
copied, verbatim, after its own digest was compared. Serves compaction, before a pack is put into
trash, and the sweep, before it is deleted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.collecting.blob_source import Blob, BlobSource
from backpoint_repo.collecting.good_copies import GoodCopies
from backpoint_repo.collecting.live_content import LiveContent
from backpoint_repo.collecting.secured_copies import SecuredCopies
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.pack import PACK_SIZE
from backpoint_repo.verbatim_copy import VerbatimCopies

_PORTION: Final = 2 * PACK_SIZE
"""Bytes of a pack that are in memory at once: all of any pack that our own programs write."""


class Rescue:
    """For one thread. What it copied counts after `flush`."""

    def __init__(self, live: LiveContent, good: GoodCopies, copies: VerbatimCopies) -> None:
        self._live = live
        self._good = good
        self._copies = copies
        self._written = SecuredCopies()
        self._compared = SecuredCopies()

    def compare_again(self) -> None:
        """To be called when trash is read: by whom, and since when, a pack that was compared is
        gone may be in trash no more. What was written stays good, as long as our lease stands."""
        self._compared = SecuredCopies()

    @property
    def copied(self) -> int:
        """Bytes of blobs copied so far."""
        return self._copies.stored

    def secure(self, source: BlobSource, leaving: Collection[PackRef]) -> list[bytes]:
        """Make sure of all that is live in this pack. leaving: packs that do not count, itself
        included.

        Returns ids that are spoiled or marked here and have no good copy elsewhere: while there
        are any, the pack must stay, and mostly nothing was copied. Raises ObjectMissing where the
        pack is gone, StoreUnavailable, StoreFull.
        """
        rows = np.flatnonzero(self._live.holds(source.directory.ids))
        for secured in (self._written, self._compared):
            ids, digests = source.directory.ids[rows], source.directory.digests[rows]
            rows = rows[~secured.hold(ids, digests, leaving)]
        portions = np.cumsum(source.directory.lengths[rows], dtype=np.int64) // _PORTION
        for portion in range(int(portions[-1]) + 1 if len(rows) else 0):
            if lost := self._secure_rows(source, rows[portions == portion], leaving):
                return lost
        return []

    def _secure_rows(
        self, source: BlobSource, rows: NDArray[np.int64], leaving: Collection[PackRef]
    ) -> list[bytes]:
        blobs, lost = list[Blob](), list[bytes]()
        several = self._good.any_twice(source.directory.ids[rows])
        for blob in source.read(rows):
            doubtful = blob.sealed is None or self._good.is_marked(source.pack, blob.content_id)
            look = several or doubtful
            pack = self._good.elsewhere(source, blob, leaving) if look else None
            if pack is not None:
                self._compared.add(blob.content_id, blob.digest, pack)
            elif doubtful:
                lost.append(blob.content_id)
            else:
                blobs.append(blob)
        for blob in blobs if not lost else ():
            self._copy(source.pack.kind, blob)
        return lost

    def flush(self) -> None:
        """Return when all copies are durable and indexed."""
        self._copies.flush()

    def _copy(self, kind: Kind, blob: Blob) -> None:
        assert blob.sealed is not None
        pack = self._copies.add(
            kind, blob.content_id, blob.sealed, blob.plain_length, blob.data_key
        )
        self._written.add(blob.content_id, blob.digest, pack)
