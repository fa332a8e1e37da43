"""Blobs in, durable packs out: fills one pack after another and uploads them beside the sealing.

A blob counts as stored only once its pack is durable. Unusable after the first error, so that
nothing is indexed that may not be there.
"""

from __future__ import annotations

import secrets
from collections import deque
from concurrent.futures import Executor, Future
from typing import Final

from backpoint_repo.errors import ObjectExists
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PACK_NAME_SIZE, Location, PackRef
from backpoint_repo.pack import PACK_SIZE, PackBuilder
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.contract import Store

Entries = list[tuple[bytes, Location]]

_UPLOADS_FAR: Final = 3
"""Where each request waits for a network: with 50 ms of it, two nearly fill a line of 200 MB/s, and
one connection to a real store is slower than that."""


def uploads_at_once(store: Store) -> int:
    """Packs being uploaded beside the one being filled: 32 MiB of memory each."""
    return 1 if store.lanes == 1 else _UPLOADS_FAR


class PackStream:
    """For one thread. `data_keys`: what each pack's directory lists (key id -> sealed key)."""

    def __init__(
        self,
        sealed: SealedStore,
        kind: Kind,
        session: bytes,
        data_keys: dict[bytes, bytes],
        uploads: Executor,
    ) -> None:
        self._sealed = sealed
        self._kind = kind
        self._session = session
        self._data_keys = data_keys
        self._uploads = uploads
        self._uploads_max = uploads_at_once(sealed.store)
        self._in_flight: deque[Future[Entries]] = deque()
        self._spare: list[memoryview] = []
        self._durable: Entries = []
        self._builder = self._new_builder()
        self._entries: Entries = []
        self.stored = 0

    def append(self, content_id: bytes, blob: bytes, plain_length: int) -> None:
        """Add a sealed blob. Raises what an earlier upload raised."""
        offset = self._builder.add(content_id, blob, plain_length)
        pack = PackRef(self._kind, self._builder.name)
        self._entries.append((content_id, Location(pack, offset, len(blob))))
        self.stored += len(blob)
        if self._builder.size >= PACK_SIZE:
            self._close_pack()

    def flush(self) -> None:
        """Return when every blob appended so far is durable."""
        if len(self._builder):
            self._close_pack()
        while self._in_flight:
            self._durable += self._in_flight.popleft().result()

    def take_durable(self) -> Entries:
        """Index entries of blobs that became durable since the last call."""
        taken, self._durable = self._durable, []
        return taken

    def _close_pack(self) -> None:
        while len(self._in_flight) >= self._uploads_max:
            self._durable += self._in_flight.popleft().result()
        uploading = self._uploads.submit(self._upload, self._builder, self._entries)
        self._in_flight.append(uploading)
        self._builder, self._entries = self._new_builder(), []

    def _upload(self, builder: PackBuilder, entries: Entries) -> Entries:
        meta_key, packer = self._sealed.keyring.meta_key, self._sealed.packer
        pieces = builder.finish(self._data_keys, meta_key, packer)
        try:
            self._sealed.store.put(builder.key, pieces)
        except ObjectExists as error:
            raise AssertionError("a 128-bit random pack name was drawn twice") from error
        self._spare.append(builder.buffer)
        return entries

    def _new_builder(self) -> PackBuilder:
        # The first touch of memory costs more than filling it: packs that are stored leave theirs.
        buffer = self._spare.pop() if self._spare else None
        return PackBuilder(self._kind, secrets.token_bytes(PACK_NAME_SIZE), self._session, buffer)
