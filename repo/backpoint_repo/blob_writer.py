"""Stores chunks and map nodes of one backup session: what is known costs nothing, the rest is
sealed.

Decides what is new (against the index and against this session), under which key and nonce it is
sealed, and when an index segment is written. Knows no sources, disks or points.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from backpoint_repo.format import HOLE, Kind
from backpoint_repo.index import Index, ids_of
from backpoint_repo.keyring import DATA_KEY_SIZE, KEY_ID_SIZE, data_key_id
from backpoint_repo.node_reader import node_id_of
from backpoint_repo.pack_stream import PackStream
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import node_blob_key, seal_blob

_SEAL_UNIT: Final = 1 << 20
"""Plain bytes sealed per job: a job of many chunks hides what handing it to a thread costs."""
_SEGMENT_AFTER: Final = 1 << 17
"""Blobs after which an index segment is written: bounds the memory of what is not indexed yet."""


@dataclass(frozen=True)
class Written:
    """Totals of a session, in bytes and chunks."""

    new_chunks: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True)
class _Job:
    """One chunk to seal."""

    content_id: bytes
    plain: memoryview | bytes
    counter: int


class SealingJobs:
    """Chunks handed to `BlobWriter.start` that are being sealed."""

    def __init__(self, units: list[tuple[list[_Job], Future[list[bytes]]]]) -> None:
        self.units = units


class BlobWriter:
    """For one thread, which hands sealing to `workers` and packs to `uploads`."""

    def __init__(
        self,
        sealed: SealedStore,
        index: Index,
        session: bytes,
        workers: Executor,
        uploads: Executor,
    ) -> None:
        self._sealed = sealed
        self._index = index
        self._workers = workers
        keyring = sealed.keyring
        self._data_key = secrets.token_bytes(DATA_KEY_SIZE)
        sealed_key = keyring.seal_data_key(self._data_key, sealed.repository_id)
        self._key_id = data_key_id(sealed_key)
        self._node_key_id = secrets.token_bytes(KEY_ID_SIZE)
        self._node_key = node_blob_key(keyring.meta_key, self._node_key_id)
        self._chunk_counter, self._node_counter = count(), count()
        data_keys = {self._key_id: sealed_key}
        self._chunks = PackStream(sealed, Kind.DATA_PACK, session, data_keys, uploads)
        self._nodes = PackStream(sealed, Kind.NODE_PACK, session, {}, uploads)
        self._pending: set[bytes] = set()
        self._written = Written()

    @property
    def written(self) -> Written:
        """Totals so far."""
        return replace(self._written, stored_bytes=self._chunks.stored + self._nodes.stored)

    def start(
        self, ids: Sequence[bytes], content: Callable[[int], memoryview | bytes]
    ) -> SealingJobs:
        """Begin to seal those chunks that are new; HOLE is passed over.

        content: index into `ids` -> plain bytes, which must stay until `finish`.
        """
        units: list[tuple[list[_Job], Future[list[bytes]]]] = []
        unit: list[_Job] = []
        size = 0
        for at in self._new(ids):
            content_id, plain = ids[at], content(at)
            self._written = replace(
                self._written,
                new_chunks=self._written.new_chunks + 1,
                new_bytes=self._written.new_bytes + len(plain),
            )
            unit.append(_Job(content_id, plain, next(self._chunk_counter)))
            size += len(plain)
            if size >= _SEAL_UNIT:
                units.append((unit, self._workers.submit(self._seal, unit)))
                unit, size = [], 0
        if unit:
            units.append((unit, self._workers.submit(self._seal, unit)))
        return SealingJobs(units)

    def finish(self, jobs: SealingJobs) -> None:
        """Append what `start` began, in order; writes an index segment when many are pending."""
        for unit, sealing in jobs.units:
            for job, blob in zip(unit, sealing.result(), strict=True):
                self._chunks.append(job.content_id, blob, len(job.plain))
        if len(self._pending) >= _SEGMENT_AFTER:
            self.flush()

    def save_node(self, plain: bytes) -> bytes:
        """Store a map node unless it is known; returns its id."""
        node_id = node_id_of(plain, self._sealed.keyring.node_id_key)
        if node_id not in self._pending and not self._index.known(ids_of([node_id]))[0]:
            counter, packer = next(self._node_counter), self._sealed.packer
            key, key_id = self._node_key, self._node_key_id
            blob = seal_blob(plain, node_id, key, key_id, counter, packer)
            self._nodes.append(node_id, blob, len(plain))
            self._pending.add(node_id)
        return node_id

    def flush(self) -> None:
        """Return when all is durable and indexed: packs first, then the segment that names them."""
        self._chunks.flush()
        self._nodes.flush()
        entries = self._chunks.take_durable() + self._nodes.take_durable()
        if entries:
            self._index.add(entries)
        self._pending.clear()

    def _new(self, ids: Sequence[bytes]) -> list[int]:
        """Indices of ids that are stored nowhere yet; from now on they count as stored."""
        if not ids:
            return []
        known = self._index.known(ids_of(list(ids)))
        fresh = []
        for at in (~known).nonzero()[0].tolist():
            content_id = ids[at]
            if content_id != HOLE and content_id not in self._pending:
                self._pending.add(content_id)
                fresh.append(at)
        return fresh

    def _seal(self, unit: list[_Job]) -> list[bytes]:
        """On a worker thread."""
        key, key_id, packer = self._data_key, self._key_id, self._sealed.packer
        return [
            seal_blob(job.plain, job.content_id, key, key_id, job.counter, packer) for job in unit
        ]
