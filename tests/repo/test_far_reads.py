"""Reads from a store of which each request waits for a network: few requests, many at a time, and
the same bytes and faults as from anywhere."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import WantedChunk
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable
from backpoint_repo.format import HOLE, LEAF_SIZE, Kind, object_key
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.index_segment import PackRef
from backpoint_repo.point import Point
from backpoint_repo.range_plan import RANGE_MAX
from backpoint_repo.repository import Repository
from backpoint_repo.restore import restore_disk
from far_store import LANES, FarStore
from small_repository import assert_clean, back_up, keys_of, new_repository, reopened
from synthetic_disk import SyntheticDisk

MIB = 1 << 20
PATIENCE_S = 60.0
USUAL_CHUNKS = ChunkParameters.with_average(64 << 10)


def patchwork(repository: Repository, size: int, days: int) -> tuple[SyntheticDisk, Point]:
    """A full point and small changes on so many days: neighbours lie in many packs."""
    draw, disk = random.Random(size), SyntheticDisk(size)
    disk.write(0, draw.randbytes(size))
    point = back_up(repository, "vm", disk)
    for _ in range(days):
        changed = [(at * MIB // 4, MIB // 16) for at in draw.sample(range(size * 4 // MIB), 4)]
        for offset, length in changed:
            disk.write(offset, draw.randbytes(length))
        point = back_up(repository, "vm", disk, changed=changed)
    return disk, point


def opened(repository: Repository, point: Point, kept: int = 64 * MIB) -> ImageReader:
    """As another process sees it, that knows nothing yet."""
    return reopened(repository).open_disk(point.disks[0], ChunkCache(kept))


def all_of(reader: ImageReader) -> bytes:
    return b"".join(reader.read(at, MIB) for at in range(0, reader.size, MIB))


def at_once(jobs: list[Callable[[], object]]) -> None:
    """All of them, begun together."""
    ready = threading.Barrier(len(jobs))

    def work(job: Callable[[], object]) -> None:
        ready.wait(PATIENCE_S)
        job()

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_one_read_of_what_lies_in_many_packs_waits_for_all_of_them_together() -> None:
    store = FarStore()
    repository = new_repository(store, chunks=USUAL_CHUNKS)
    disk, point = patchwork(repository, 4 * MIB, days=6)
    reader = opened(repository, point)
    reader.read(0, 4096)  # the map
    store.hold_until(4)
    assert reader.read(0, disk.size) == disk.content(0, disk.size)
    assert store.at_once <= LANES + 1
    assert_clean(repository)


def test_a_disk_read_in_order_takes_few_requests() -> None:
    """For the map, for each window or pack, and for each session's key: no more."""
    store = FarStore()
    repository = new_repository(store, chunks=USUAL_CHUNKS)
    disk = SyntheticDisk(24 * MIB)
    disk.write(0, random.Random(1).randbytes(disk.size))
    reader = opened(repository, back_up(repository, "vm", disk))
    packs = len(keys_of(store, Kind.DATA_PACK))
    store.forget()
    window = 2 * MIB
    for offset in range(0, disk.size, window):
        reader.prefetch(offset, window)
    assert store.count("range", "nodes/") <= 2
    assert store.count("range", "packs/") <= disk.size // window + 2 * packs
    assert all(asked.length <= RANGE_MAX for asked in store.asked)
    store.forget()
    assert all_of(reader) == disk.content(0, disk.size)
    assert store.asked == []


def test_the_map_of_who_reads_on_comes_many_leaves_at_a_time() -> None:
    leaves = 40

    def requests_for_map(lanes: int) -> int:
        store = FarStore(lanes)
        repository = new_repository(store)
        disk = SyntheticDisk(leaves * LEAF_SIZE)
        for number in range(leaves):
            disk.write(number * LEAF_SIZE, bytes([number + 1]) * 4096)
        reader = opened(repository, back_up(repository, "vm", disk))
        store.forget()
        for number in range(leaves):
            reader.prefetch(number * LEAF_SIZE, 4096)
        return store.count("range", "nodes/")

    assert requests_for_map(LANES) == 1 + -(-leaves // 16)
    assert requests_for_map(1) == 1 + leaves


def test_all_who_begin_at_once_share_what_all_need() -> None:
    """The index, the map and the session's key are asked for once, not once by each."""
    store, readers = FarStore(), 8
    repository = new_repository(store, chunks=USUAL_CHUNKS)
    disk = SyntheticDisk(readers * MIB)
    disk.write(0, random.Random(1).randbytes(disk.size))
    reader = opened(repository, back_up(repository, "vm", disk))
    found = dict[int, bytes]()

    def read(number: int) -> None:
        found[number] = bytes(reader.read(number * MIB, MIB))

    store.forget()
    at_once([lambda number=number: read(number) for number in range(readers)])  # type: ignore[misc]
    assert b"".join(found[number] for number in range(readers)) == disk.content(0, disk.size)
    assert store.count("list", "index/") == 2, "one look for new segments takes two listings"
    assert store.count("range", "nodes/") == 1, "a map of one leaf"
    assert store.count("tail", "packs/") == 1, "one session's key"


def test_memory_is_bounded_by_lanes_and_callers() -> None:
    store, callers = FarStore(2), 3
    repository = new_repository(store, chunks=USUAL_CHUNKS)
    disk, point = patchwork(repository, 8 * MIB, days=4)
    reader = opened(repository, point, kept=0)
    reader.read(0, 4096)
    store.forget()
    at_once([lambda: reader.read(0, disk.size) for _ in range(callers)])
    assert store.at_once <= 2 + callers
    assert store.bytes_at_once <= (2 + callers) * RANGE_MAX


def packs_of(repository: Repository, point: Point) -> list[str]:
    """Keys of the packs that a small disk's chunks lie in."""
    leaf = repository.disk_map(point.disks[0]).leaf(0)
    places = repository.chunks.locate([row.tobytes() for row in leaf.ids])
    return sorted({object_key(place.pack.kind, place.pack.name.hex()) for place in places if place})


class FailingStore(FarStore):
    """Ranged gets of one key fail."""

    failing = ""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if key == self.failing:
            raise StoreUnavailable(f"{key}: the network is away")
        return super().get_range(key, offset, length)


def test_a_store_that_fails_under_one_range_says_so_and_is_asked_again() -> None:
    store = FailingStore()
    repository = new_repository(store, chunks=USUAL_CHUNKS)
    disk, point = patchwork(repository, 2 * MIB, days=3)
    packs = packs_of(repository, point)
    assert len(packs) > 2
    reader = opened(repository, point)
    for store.failing in packs:
        with pytest.raises(StoreUnavailable, match="the network is away"):
            reader.read(0, disk.size)
    store.failing = ""
    assert reader.read(0, disk.size) == disk.content(0, disk.size)


def test_a_pack_that_is_gone_costs_what_only_it_holds() -> None:
    store = FarStore()
    repository = new_repository(store, chunks=USUAL_CHUNKS)
    disk, point = patchwork(repository, 2 * MIB, days=3)
    gone = packs_of(repository, point)[0]
    reader = opened(repository, point)
    reader.read(0, 4096)
    data = store.get(gone)
    store.delete(gone)
    with pytest.raises(ObjectMissing, match=gone):
        reader.read(0, disk.size)
    store.put(gone, [data])
    assert reader.read(0, disk.size) == disk.content(0, disk.size)


def test_nodes_that_cannot_be_brought_are_left_for_who_loads_them() -> None:
    store = FarStore()
    repository = new_repository(store)
    disk = SyntheticDisk(3 * LEAF_SIZE)
    for number in range(3):
        disk.write(number * LEAF_SIZE, bytes([number + 1]) * 4096)
    point = back_up(repository, "vm", disk)
    fresh = reopened(repository)
    fresh.index.refresh()
    ids = [node_id for _, node_id in fresh.disk_map(point.disks[0]).leaves()]
    (key,) = keys_of(store, Kind.NODE_PACK)
    place = fresh.index.copies(ids[1])[0]
    data = bytearray(store.get(key))
    data[place.offset + 30] ^= 1
    store.delete(key)
    store.put(key, [data])
    again = reopened(repository)
    again.index.refresh()
    store.forget()
    again.nodes.bring([*ids, HOLE, b"x" * 32])
    assert store.count("range", "nodes/") == 1
    assert again.nodes.load(ids[0])
    assert again.nodes.load(ids[2])
    assert store.count("range", "nodes/") == 1
    with pytest.raises(ObjectDamaged):
        again.nodes.load(ids[1])


def test_who_loads_a_node_that_is_on_its_way_waits_for_it() -> None:
    store = FarStore()
    repository = new_repository(store)
    disk = SyntheticDisk(2 * LEAF_SIZE)
    disk.write(0, b"x" * 4096)
    disk.write(LEAF_SIZE, b"y" * 4096)
    point = back_up(repository, "vm", disk)
    fresh = reopened(repository)
    ids = [node_id for _, node_id in fresh.disk_map(point.disks[0]).leaves()]
    fresh = reopened(repository)
    fresh.index.refresh()
    store.forget()
    loads = [lambda node_id=node_id: fresh.nodes.load(node_id) for node_id in ids * 4]
    at_once([lambda: fresh.nodes.bring(ids), *loads])
    assert store.count("range", "nodes/") <= len(ids)


def test_a_place_of_gigabytes_is_not_fetched() -> None:
    store = FarStore()
    repository = new_repository(store)
    disk = SyntheticDisk(MIB)
    disk.write(0, random.Random(1).randbytes(MIB))
    leaf = repository.disk_map(back_up(repository, "vm", disk).disks[0]).leaf(0)
    ids = [row.tobytes() for row in leaf.ids]
    places = repository.chunks.locate(ids)
    wanted = [
        WantedChunk(content_id, int(blocks) * 4096, place and place._replace(length=0xFFFFFFFF))
        for content_id, blocks, place in zip(ids, leaf.lengths, places, strict=True)
    ]
    store.forget()
    assert b"".join(repository.chunks.read(wanted)) == disk.content(0, MIB)
    assert max(asked.length for asked in store.asked) < 2 * MIB


def test_an_id_that_is_in_a_pack_of_nodes_is_no_chunk() -> None:
    """What an index says of kinds is not believed either."""
    store = FarStore()
    repository = new_repository(store)
    disk = SyntheticDisk(4096)
    disk.write(0, b"x" * 4096)
    leaf = repository.disk_map(back_up(repository, "vm", disk).disks[0]).leaf(0)
    (content_id,) = [row.tobytes() for row in leaf.ids]
    (place,) = repository.chunks.locate([content_id])
    assert place is not None
    (key,) = keys_of(store, Kind.NODE_PACK)
    wrong = place._replace(pack=PackRef(Kind.NODE_PACK, bytes.fromhex(key[-32:])))
    assert repository.chunks.read([WantedChunk(content_id, 4096, wrong)]) == [b"x" * 4096]


def test_a_restore_has_several_units_on_their_way(tmp_path: Path) -> None:
    store = FarStore()
    repository = new_repository(store, chunks=USUAL_CHUNKS)
    disk, point = patchwork(repository, 24 * MIB, days=2)
    reader = opened(repository, point)
    done = list[int]()
    reader.read(0, 4096)
    store.hold_until(6)
    restore_disk(reader, tmp_path / "out.raw", "raw", bytes(16), done.append)
    assert (tmp_path / "out.raw").read_bytes() == disk.content(0, disk.size)
    assert sum(done) == disk.size
