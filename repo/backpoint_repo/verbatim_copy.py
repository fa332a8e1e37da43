"""Sealed blobs into new packs as they are: no data key is needed, so the agent credential will do.

Decides how copies are packed and when they count: packs first, then the segment that names them.
Whether a blob is what it should be, and worth a copy, is for whoever reads it (`collecting/`,
`healing/`).
"""

from __future__ import annotations

import secrets
from collections import deque
from concurrent.futures import Executor, Future
from typing import Final

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import Kind
from backpoint_repo.index import Index
from backpoint_repo.index_segment import PACK_NAME_SIZE, Location, PackRef
from backpoint_repo.keyring import data_key_id
from backpoint_repo.pack import PACK_SIZE, PackBuilder
from backpoint_repo.pack_stream import uploads_at_once
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import blob_key_id

DataKey = tuple[bytes, bytes]
"""Key id (16 bytes), data key sealed to the owner (1168 bytes): as pack directories list them."""

KEYS_MAX: Final = 256
"""Data keys that one pack lists at most: 300 KB, 1 % of a pack, and all of it is read to find one
chunk. Blobs of a pack come from few sessions, so this is hardly ever met."""
_SEGMENT_AFTER: Final = 1 << 17
"""Copies after which an index segment is written: bounds the memory of what is not indexed yet."""


class VerbatimCopies:
    """For one thread. Holds one pack of each kind in memory, 64 MiB at most, and those under way.

    What was added counts only after `flush`. Unusable after the first error.
    """

    def __init__(
        self, sealed: SealedStore, index: Index, session: bytes, uploads: Executor | None = None
    ) -> None:
        """session: 16 bytes, whose packs the copies are; its lease protects them. uploads: where
        packs are put beside the filling of others; without it, `add` waits for them."""
        self._sealed = sealed
        self._index = index
        self._session = session
        self._uploads = uploads
        self._uploads_max = uploads_at_once(sealed.store)
        self._in_flight: deque[tuple[_OpenPack, Future[None]]] = deque()
        self._spare: list[memoryview] = []
        self._open: dict[Kind, _OpenPack] = {}
        self._durable: list[tuple[bytes, Location]] = []
        self._packs: set[PackRef] = set()
        self.blobs = 0
        self.stored = 0
        """Blobs and sealed bytes added so far."""

    def add(
        self,
        kind: Kind,
        content_id: bytes,
        blob: bytes | memoryview,
        plain_length: int,
        data_key: DataKey | None,
    ) -> PackRef:
        """Append a sealed blob to a pack of this kind; the caller has verified its bytes.

        data_key: the one it is sealed with, None for map nodes. Returns the pack that will hold it.
        Raises ObjectDamaged where the blob names another key, and what a store raises.
        """
        own_key = _own_key(kind, content_id, blob, data_key)
        pack = self._open.get(kind)
        if pack is not None and not pack.takes(own_key):
            self._close(pack)
            pack = None
        if pack is None:
            name = secrets.token_bytes(PACK_NAME_SIZE)
            buffer = self._spare.pop() if self._spare else None
            pack = self._open[kind] = _OpenPack(PackBuilder(kind, name, self._session, buffer))
        pack.add(content_id, bytes(blob), plain_length, own_key)
        self.blobs += 1
        self.stored += len(blob)
        if pack.builder.size >= PACK_SIZE:
            self._close(pack)
        return pack.ref

    def flush(self) -> frozenset[PackRef]:
        """Return when all that was added is durable and indexed: the packs since the last flush."""
        for pack in list(self._open.values()):
            self._close(pack)
        while self._in_flight:
            self._await_one()
        self._write_segment()
        flushed = frozenset(self._packs)
        self._packs.clear()
        return flushed

    def _close(self, pack: _OpenPack) -> None:
        del self._open[pack.builder.kind]
        while len(self._in_flight) >= self._uploads_max:
            self._await_one()
        if self._uploads is None:
            self._put(pack)
            self._count(pack)
        else:
            self._in_flight.append((pack, self._uploads.submit(self._put, pack)))

    def _put(self, pack: _OpenPack) -> None:
        keyring, packer = self._sealed.keyring, self._sealed.packer
        pieces = pack.builder.finish(pack.data_keys, keyring.meta_key, packer)
        self._sealed.store.put(pack.builder.key, pieces)

    def _await_one(self) -> None:
        pack, uploading = self._in_flight.popleft()
        uploading.result()
        self._count(pack)

    def _count(self, pack: _OpenPack) -> None:
        """It is durable."""
        self._durable += pack.entries
        self._packs.add(pack.ref)
        self._spare.append(pack.builder.buffer)
        if len(self._durable) >= _SEGMENT_AFTER:
            self._write_segment()

    def _write_segment(self) -> None:
        if self._durable:
            self._index.add(self._durable)
            self._durable = []


class _OpenPack:
    """A pack that is being filled, with the data keys of what it holds."""

    def __init__(self, builder: PackBuilder) -> None:
        self.builder = builder
        self.ref = PackRef(builder.kind, builder.name)
        self.data_keys: dict[bytes, bytes] = {}
        self.entries: list[tuple[bytes, Location]] = []

    def takes(self, data_key: DataKey | None) -> bool:
        """Whether the directory has room for this key."""
        return data_key is None or data_key[0] in self.data_keys or len(self.data_keys) < KEYS_MAX

    def add(
        self, content_id: bytes, blob: bytes, plain_length: int, data_key: DataKey | None
    ) -> None:
        """As `PackBuilder.add`."""
        if data_key is not None:
            self.data_keys[data_key[0]] = data_key[1]
        offset = self.builder.add(content_id, blob, plain_length)
        self.entries.append((content_id, Location(self.ref, offset, len(blob))))


def _own_key(
    kind: Kind, content_id: bytes, blob: bytes | memoryview, data_key: DataKey | None
) -> DataKey | None:
    """The data key that a pack must list for this blob, so that its owner can open the copy."""
    if kind is Kind.NODE_PACK:
        return None
    named = blob_key_id(blob)
    if data_key is None or data_key[0] != named or data_key_id(data_key[1]) != named:
        raise ObjectDamaged(f"the blob of chunk {content_id.hex()[:16]} names another data key")
    return data_key
