"""Is every pack what its directory and the index say it is, and, if asked, does every blob open?

Yields which copies of which chunks are bad. Whom that hurts is for `scrubbing/harm.py`, how a pack
is read for `scrubbing/pack_reader.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.check_report import DamagedObject
from backpoint_repo.chunk_reader import ChunkReader
from backpoint_repo.errors import RepositoryError
from backpoint_repo.format import object_key
from backpoint_repo.in_threads import THREADS, in_threads
from backpoint_repo.index import Index, stored_packs
from backpoint_repo.index_segment import IndexTable, PackRef
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.pack import PackDirectory
from backpoint_repo.scrubbing.pack_reader import (
    PackReader,
    PackVerdict,
    verdict_without_directory,
)
from backpoint_repo.sealed_store import SealedStore


@dataclass
class PackFindings:
    """damaged: packs that are missing or wrong. present: those in the store, missing: those that
    the index names and the store does not. bad_copies: (content id, pack) -> reason. read: packs
    whose blobs were all opened. notes: what harms nobody."""

    packs: int = 0
    chunks: int = 0
    read_bytes: int = 0
    damaged: list[DamagedObject] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    present: frozenset[PackRef] = frozenset()
    missing: frozenset[PackRef] = frozenset()
    bad_copies: dict[tuple[bytes, PackRef], str] = field(default_factory=dict)
    read: set[PackRef] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


class PackCheck:
    """Checks packs on worker threads."""

    def __init__(
        self, sealed: SealedStore, index: Index, nodes: NodeReader, chunks: ChunkReader
    ) -> None:
        self._sealed = sealed
        self._index = index
        self._reader = PackReader(sealed, nodes, chunks)

    def run(self, read_share: float | None, advance: Callable[[int], None]) -> PackFindings:
        """Every pack's directory against the index; blobs of `read_share` (0 to 1) of all packs.

        advance: called with the number of packs done.
        """
        rows = _rows_by_pack(self._index.tables())
        present = frozenset(stored_packs(self._sealed))
        findings = PackFindings(present=present, missing=frozenset(rows.keys() - present))
        for pack in sorted(findings.missing):
            findings.damaged.append(DamagedObject(_key(pack), "the pack is missing"))
        jobs = (
            partial(self._check, pack, rows.get(pack), _drawn(read_share))
            for pack in sorted(present)
        )
        for verdict in in_threads(jobs, threads=max(THREADS, self._sealed.store.lanes)):
            _note(findings, verdict)
            advance(1)
        findings.damaged.sort(key=lambda found: found.key)
        findings.unreadable.sort()
        return findings

    def _check(self, pack: PackRef, rows: _PackRows | None, read: bool) -> PackVerdict:
        """On a worker thread."""
        try:
            directory = self._reader.directory(pack)
        except RepositoryError as error:
            verdict = verdict_without_directory(pack, error)
            if verdict.lost is None or rows is None:
                return verdict
            return replace(verdict, bad=dict.fromkeys(rows.ids(), verdict.lost))
        misplaced = rows.misplaced(directory) if rows else {}
        if not read:
            return PackVerdict(pack, len(directory.ids), bad=misplaced)
        verdict = self._reader.read(pack, directory)
        return verdict if verdict.gone else replace(verdict, bad=misplaced | verdict.bad)


def _drawn(share: float | None) -> bool:
    return share is not None and random.random() < share


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


def _rows_by_pack(tables: Iterable[IndexTable]) -> dict[PackRef, _PackRows]:
    found: dict[PackRef, list[tuple[IndexTable, NDArray[np.int64]]]] = {}
    for table in tables:
        order = np.argsort(table.pack_numbers, kind="stable")
        borders = np.searchsorted(table.pack_numbers[order], np.arange(len(table.packs) + 1))
        for number, pack in enumerate(table.packs):
            rows = order[borders[number] : borders[number + 1]]
            if len(rows):
                found.setdefault(pack, []).append((table, rows))
    return {pack: _PackRows(tuple(parts)) for pack, parts in found.items()}


def _note(findings: PackFindings, verdict: PackVerdict) -> None:
    if verdict.gone:
        return
    findings.packs += 1
    findings.chunks += verdict.blobs
    findings.read_bytes += verdict.read_bytes
    findings.notes += verdict.flaky
    if verdict.whole:
        findings.read.add(verdict.pack)
    if verdict.unreadable is not None:
        findings.unreadable.append(verdict.unreadable)
    if verdict.problem:
        findings.damaged.append(DamagedObject(_key(verdict.pack), verdict.problem))
    for content_id, why in verdict.bad.items():
        findings.bad_copies[content_id, verdict.pack] = why


def _key(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())
