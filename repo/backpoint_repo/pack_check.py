"""Is every pack what its directory and the index say it is, and, if asked, does every blob open?

Yields which copies of which chunks are bad. Whom that hurts is for `tree_check.py`.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.check_report import DamagedObject
from backpoint_repo.chunk_reader import ChunkReader
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable, UnknownFormat
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import Index, stored_packs
from backpoint_repo.index_segment import IndexTable, Location, PackRef
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.pack import PackDirectory, blob_digest
from backpoint_repo.sealed_store import SealedStore

_AT_ONCE: Final = 2 * (os.cpu_count() or 1)


@dataclass
class PackFindings:
    """lost: packs that are missing or whose directory is wrong, with the reason.
    bad_copies: (content id, pack) -> reason. read: packs whose blobs were all opened."""

    packs: int = 0
    chunks: int = 0
    read_bytes: int = 0
    damaged: list[DamagedObject] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    lost: dict[PackRef, str] = field(default_factory=dict)
    bad_copies: dict[tuple[bytes, PackRef], str] = field(default_factory=dict)
    read: set[PackRef] = field(default_factory=set)


@dataclass(frozen=True)
class _Verdict:
    """Of one pack. lost: why its directory cannot be believed; bad: content id -> reason."""

    pack: PackRef
    chunks: int
    read_bytes: int
    lost: str | None = None
    unreadable: str | None = None
    bad: dict[bytes, str] = field(default_factory=dict)


class PackCheck:
    """Checks packs on worker threads."""

    def __init__(
        self, sealed: SealedStore, index: Index, nodes: NodeReader, chunks: ChunkReader
    ) -> None:
        self._sealed = sealed
        self._index = index
        self._nodes = nodes
        self._chunks = chunks

    def run(self, read_share: float | None, advance: Callable[[int], None]) -> PackFindings:
        """Every pack's directory against the index; blobs of `read_share` (0 to 1) of all packs.

        advance: called with the number of packs done.
        """
        rows = _rows_by_pack(self._index.tables())
        present = set(stored_packs(self._sealed))
        findings = PackFindings()
        for pack in rows.keys() - present:
            findings.lost[pack] = "the pack is missing"
            for content_id in rows[pack].ids():
                findings.bad_copies[content_id, pack] = "its pack is missing"
        jobs = (
            (pack, rows.get(pack), read_share is not None and random.random() < read_share)
            for pack in sorted(present)
        )
        for verdict in self._verdicts(jobs):
            _note(findings, verdict)
            advance(1)
        findings.damaged += [
            DamagedObject(_key(pack), problem) for pack, problem in sorted(findings.lost.items())
        ]
        return findings

    def _verdicts(
        self, jobs: Iterable[tuple[PackRef, _PackRows | None, bool]]
    ) -> Iterator[_Verdict]:
        window: deque[Future[_Verdict]] = deque()
        with ThreadPoolExecutor(os.cpu_count() or 1, "check") as workers:
            try:
                for job in jobs:
                    window.append(workers.submit(self._check, *job))
                    if len(window) >= _AT_ONCE:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            finally:
                workers.shutdown(cancel_futures=True)

    def _check(self, pack: PackRef, rows: _PackRows | None, read: bool) -> _Verdict:
        """On a worker thread."""
        try:
            directory = self._sealed.directory(pack.kind, pack.name)
        except ObjectMissing:
            return _Verdict(pack, 0, 0)  # removed by a collector between listing and reading
        except (ObjectDamaged, UnknownFormat) as error:
            bad = {content_id: str(error) for content_id in rows.ids()} if rows else {}
            return _Verdict(pack, len(bad), 0, lost=str(error), bad=bad)
        except StoreUnavailable as error:
            return _Verdict(pack, 0, 0, unreadable=str(error))
        bad = rows.misplaced(directory) if rows else {}
        if not read:
            return _Verdict(pack, len(directory.ids), 0, bad=bad)
        try:
            bad |= self._read_blobs(pack, directory)
        except StoreUnavailable as error:
            return _Verdict(pack, len(directory.ids), 0, unreadable=str(error), bad=bad)
        return _Verdict(pack, len(directory.ids), int(directory.lengths.sum()), bad=bad)

    def _read_blobs(self, pack: PackRef, directory: PackDirectory) -> dict[bytes, str]:
        """Without the owner's key, chunks are held against the digests of their sealed bytes."""
        sealed_only = self._sealed.keyring.owner_private is None and pack.kind is Kind.DATA_PACK
        bad = {}
        for at, place in enumerate(_places(pack, directory)):
            content_id = directory.ids[at].tobytes()
            try:
                if sealed_only:
                    self._compare_digest(place, directory.digests[at].tobytes())
                elif pack.kind is Kind.NODE_PACK:
                    self._nodes.load_from(content_id, place)
                else:
                    self._chunks.read_copy(content_id, int(directory.plain_lengths[at]), place)
            except (ObjectDamaged, ObjectMissing, UnknownFormat) as error:
                bad[content_id] = str(error)
        return bad

    def _compare_digest(self, place: Location, digest: bytes) -> None:
        key = _key(place.pack)
        blob = self._sealed.store.get_range(key, place.offset, place.length)
        if blob_digest(blob) != digest:
            raise ObjectDamaged(
                f"{key}: the bytes at {place.offset} are not those that were stored"
            )


def _places(pack: PackRef, directory: PackDirectory) -> Iterator[Location]:
    lengths = directory.lengths.tolist()
    for offset, length in zip(directory.offsets.tolist(), lengths, strict=True):
        yield Location(pack, offset, length)


@dataclass(frozen=True)
class _PackRows:
    """What the index says of one pack: rows of tables."""

    parts: tuple[tuple[IndexTable, NDArray[np.int64]], ...]

    def ids(self) -> Iterator[bytes]:
        """Every content id the index places in this pack."""
        for table, rows in self.parts:
            for row in table.ids(rows):
                yield row.tobytes()

    def misplaced(self, directory: PackDirectory) -> dict[bytes, str]:
        """Content ids whose indexed place is not a blob of this content in the directory."""
        truth = {
            (offset, length, row.tobytes())
            for offset, length, row in zip(
                directory.offsets.tolist(),
                directory.lengths.tolist(),
                directory.ids,
                strict=True,
            )
        }
        places = (
            (int(table.offsets[row]), int(table.lengths[row]))
            for table, rows in self.parts
            for row in rows
        )
        return {
            content_id: "the index names a place in its pack where it does not lie"
            for content_id, (offset, length) in zip(self.ids(), places, strict=True)
            if (offset, length, content_id) not in truth
        }


def _rows_by_pack(tables: list[IndexTable]) -> dict[PackRef, _PackRows]:
    found: dict[PackRef, list[tuple[IndexTable, NDArray[np.int64]]]] = {}
    for table in tables:
        order = np.argsort(table.pack_numbers, kind="stable")
        borders = np.searchsorted(table.pack_numbers[order], np.arange(len(table.packs) + 1))
        for number, pack in enumerate(table.packs):
            rows = order[borders[number] : borders[number + 1]]
            if len(rows):
                found.setdefault(pack, []).append((table, rows))
    return {pack: _PackRows(tuple(parts)) for pack, parts in found.items()}


def _note(findings: PackFindings, verdict: _Verdict) -> None:
    findings.packs += 1
    findings.chunks += verdict.chunks
    findings.read_bytes += verdict.read_bytes
    if verdict.read_bytes:
        findings.read.add(verdict.pack)
    if verdict.lost is not None:
        findings.lost[verdict.pack] = verdict.lost
    if verdict.unreadable is not None:
        findings.unreadable.append(verdict.unreadable)
    if verdict.bad and verdict.lost is None:
        count, example = len(verdict.bad), next(iter(verdict.bad.values()))
        problem = f"{count} of {verdict.chunks} blobs are damaged, the first: {example}"
        findings.damaged.append(DamagedObject(_key(verdict.pack), problem))
    for content_id, problem in verdict.bad.items():
        findings.bad_copies[content_id, verdict.pack] = problem


def _key(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())
