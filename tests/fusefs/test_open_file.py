"""An open file on a store of which each request waits for a network: windows side by side."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio
import trio.lowlevel

from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.open_file import OpenFile, PrefetchBudget
from backpoint_fusefs.readahead import depth_of
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.image_reader import ImageReader
from far_store import LANES, FarStore
from small_repository import assert_clean, back_up, new_repository, reopened
from synthetic_disk import SyntheticDisk

MIB = 1 << 20
STEP = 128 << 10


def stored(store: FarStore) -> tuple[SyntheticDisk, ImageReader]:
    """A disk, and its reader in another process; the map's root has been read."""
    disk = SyntheticDisk(24 * MIB)
    disk.write(0, random.Random(1).randbytes(disk.size))
    repository = new_repository(store, chunks=ChunkParameters.with_average(64 << 10))
    point = back_up(repository, "vm", disk)
    assert_clean(repository)
    reader = reopened(repository).open_disk(point.disks[0], ChunkCache(64 * MIB))
    reader.read(0, 4096)
    store.forget()
    return disk, reader


def read_on(
    reader: ImageReader,
    budget: PrefetchBudget,
    until: int,
    begun: Callable[[], None] = lambda: None,
) -> bytes:
    """As a program that reads a file from its beginning, in small pieces. begun: called once it is
    known to read on."""

    async def main() -> bytes:
        workers = DecodeWorkers(2 + LANES)
        file = OpenFile(reader, workers, budget, "vm disk0")
        try:
            pieces = [await file.read(at, STEP) for at in range(0, MIB, STEP)]
            begun()
            pieces += [await file.read(at, STEP) for at in range(MIB, until, STEP)]
            while budget.in_flight:
                await trio.lowlevel.checkpoint()
            return b"".join(pieces)
        finally:
            file.close()
            workers.close()

    return trio.run(main)


def test_a_sequential_reader_has_many_requests_under_way_and_few_in_all() -> None:
    store = FarStore()
    disk, reader = stored(store)
    depth = depth_of(LANES)
    budget = PrefetchBudget(64 * MIB, LANES, depth)
    asked = list[int]()

    def begun() -> None:
        asked.append(store.count("range", "packs/"))
        store.hold_until(4)

    assert read_on(reader, budget, disk.size, begun) == disk.content(0, disk.size)
    assert asked[0] + store.count("range", "packs/") <= disk.size // depth.window + 6
    assert store.at_once <= 2 + 2 * LANES


def test_prefetching_keeps_to_its_budget() -> None:
    store = FarStore()
    disk, reader = stored(store)
    depth = depth_of(LANES)
    budget = PrefetchBudget(4 * MIB, LANES, depth)
    assert read_on(reader, budget, 4 * MIB) == disk.content(0, 4 * MIB)
    fetched = sum(asked.length for asked in store.asked if asked.key.startswith("packs/"))
    assert fetched <= 4 * MIB + 4 * MIB + depth.window
