"""Copies that this collector relies on: those it has written, and those it has compared byte by
byte.

Everything else that claims to be a copy is somebody's word. A copy counts only while its pack is in
no trash, and only for blobs of the same sealed bytes: that another pack claims to hold the same
content is somebody's word, too. Knows ids, digests and packs, no bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import IndexTable, PackRef, build_table, merge_tables
from backpoint_repo.map_node import Ids

_PENDING_MAX: Final = 1 << 14


class SecuredCopies:
    """For one thread. 45 bytes a copy."""

    def __init__(self) -> None:
        self._tables: list[IndexTable] = []
        self._pending: list[tuple[bytes, PackRef]] = []

    def add(self, content_id: bytes, digest: bytes, pack: PackRef) -> None:
        """There lies a good copy of the blob that has this digest."""
        self._pending.append((_key(content_id, digest), pack))
        if len(self._pending) >= _PENDING_MAX:
            self._settle()

    def hold(
        self, ids: Ids, digests: NDArray[np.uint8], forbidden: Collection[PackRef]
    ) -> NDArray[np.bool_]:
        """(m,) which blobs have a copy outside these packs. digests: (m, 16)."""
        self._settle()
        found = np.zeros(len(ids), np.bool_)
        if not self._tables:
            return found
        pairs = zip(ids, digests, strict=True)
        keys = ids_of([_key(one.tobytes(), digest.tobytes()) for one, digest in pairs])
        for table in self._tables:
            usable = np.array([pack not in forbidden for pack in table.packs], np.bool_)
            found |= table.find(keys, usable) >= 0
        return found

    def _settle(self) -> None:
        if not self._pending:
            return
        packs = list(dict.fromkeys(pack for _, pack in self._pending))
        number = {pack: at for at, pack in enumerate(packs)}
        keys = ids_of([key for key, _ in self._pending])
        owners = np.array([number[pack] for _, pack in self._pending], np.uint32)
        nothing = np.zeros(len(owners), np.uint32)
        self._pending = []
        self._tables.append(build_table(packs, keys, owners, nothing, nothing))
        while len(self._tables) > 1 and len(self._tables[-2]) < 2 * len(self._tables[-1]):
            self._tables.append(merge_tables([self._tables.pop(), self._tables.pop()]))


def _key(content_id: bytes, digest: bytes) -> bytes:
    """Of the whole id: the same bytes may be listed under another that begins alike. It is as long
    as an id, so that a table of the index can hold it."""
    return blake3(content_id + digest).digest()
