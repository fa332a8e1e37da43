"""Bytes that an entry of the index, a listed pack and a listed point take: measured, on synthetic
ones by the tables and listings themselves.
"""

from __future__ import annotations

import secrets
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from backpoint_repo.catalog import summarize
from backpoint_repo.format import HOLE, ID_SIZE, Kind
from backpoint_repo.id_sieve import IdSieve
from backpoint_repo.index_segment import IndexTable, PackRef, build_table
from backpoint_repo.point import POINT_ID_SIZE, Disk, Point

_LISTED: Final = 20_000
_PER_PACK: Final = 512


@dataclass(frozen=True)
class Footprint:
    """entry: bytes of a segment; sieve: of memory, for each entry. pack, point: of memory, for each
    that a backup has listed. found_per_s: ids looked up in a table, all of which it has."""

    entry: float
    sieve: float
    pack: float
    point: float
    found_per_s: float


def footprint(entries: int) -> Footprint:
    """entries: of the synthetic index; half a million take a second."""
    table = synthetic_table(entries)
    sieve = _bytes_of(lambda: IdSieve([table])) / entries
    return Footprint(
        entry=len(table.encode()) / entries,
        sieve=sieve,
        pack=_bytes_of(_listed_packs) / _LISTED,
        point=_bytes_of(_listed_points) / _LISTED,
        found_per_s=_found_per_s(table),
    )


def synthetic_table(entries: int) -> IndexTable:
    """Random ids, as many in a pack as 64 KiB chunks have room in one."""
    packs = [
        PackRef(Kind.DATA_PACK, secrets.token_bytes(16)) for _ in range(1 + entries // _PER_PACK)
    ]
    ids = np.random.default_rng(1).integers(0, 256, (entries, ID_SIZE), np.uint8)
    rows = np.arange(entries, dtype=np.uint32)
    within = rows % np.uint32(_PER_PACK) * np.uint32(1 << 15)
    return build_table(packs, ids, rows // np.uint32(_PER_PACK), within, within)


def _listed_packs() -> object:
    """What a backup remembers of its listing."""
    return {
        PackRef(Kind.DATA_PACK, secrets.token_bytes(16)): number << 10 for number in range(_LISTED)
    }


def _listed_points() -> object:
    """What a catalogue remembers of its listing."""
    disk = Disk("disk0", 1 << 30, HOLE, 0, "made")
    known = {}
    for number in range(_LISTED):
        own = secrets.token_bytes(POINT_ID_SIZE)
        point = Point(own, f"vm{number % 100}", float(number), float(number), "", (disk,))
        known[own.hex()] = summarize(point)
    return known


def _bytes_of(make: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = make()
        after, _ = tracemalloc.get_traced_memory()
        del made
    finally:
        tracemalloc.stop()
    return after - before


def _found_per_s(table: IndexTable) -> float:
    asked = table.ids(np.sort(np.random.default_rng(2).permutation(len(table))[: 1 << 16]))
    usable = np.ones(len(table.packs), np.bool_)
    begun = time.perf_counter()
    found = table.find(asked, usable)
    seconds = time.perf_counter() - begun
    assert (found >= 0).all()
    return len(asked) / seconds
