"""Chunks out of packs: in few requests, from any good copy, after packs have moved."""

from __future__ import annotations

import random

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import WantedChunk
from backpoint_repo.errors import ObjectDamaged, ObjectMissing
from backpoint_repo.format import HEADER, HOLE, Kind, object_key
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.pack import PackBuilder
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from far_store import FarStore
from small_repository import StandingClock, back_up, keys_of, new_repository, read_disk, reopened
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20


class CountingStore(MemoryStore):
    """Counts ranged gets of data packs."""

    gets = 0

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.gets += key.startswith("packs/")
        return super().get_range(key, offset, length)


@pytest.fixture(params=[MemoryStore, FarStore])
def repository(request: pytest.FixtureRequest, clock: StandingClock) -> Repository:
    """Near, and where requests wait for a network and are made together."""
    return new_repository(request.param(), clock)


def wanted_of(repository: Repository, point: Point) -> list[WantedChunk]:
    leaf = repository.disk_map(point.disks[0]).leaf(0)
    rows = zip(leaf.ids, leaf.lengths, strict=True)
    pairs = [(row.tobytes(), int(length) * 4096) for row, length in rows if row.any()]
    places = repository.chunks.locate([content_id for content_id, _ in pairs])
    return [
        WantedChunk(content_id, length, place)
        for (content_id, length), place in zip(pairs, places, strict=True)
    ]


def full_disk(size: int) -> SyntheticDisk:
    disk = SyntheticDisk(size)
    disk.write(0, random.Random(size).randbytes(size))
    return disk


def test_neighbours_come_in_one_request() -> None:
    store = CountingStore()
    repository = new_repository(store)
    disk = full_disk(3 * MIB)
    fresh = reopened(repository)
    wanted = wanted_of(fresh, back_up(repository, "vm", disk))
    fresh.chunks.read(wanted[:1])
    store.gets = 0
    shuffled = random.Random(1).sample(wanted, len(wanted))
    contents = dict(zip(shuffled, fresh.chunks.read(shuffled), strict=True))
    assert b"".join(contents[chunk] for chunk in wanted) == disk.content(0, disk.size)
    assert store.gets == 1


def test_far_apart_chunks_are_not_read_across() -> None:
    store = CountingStore()
    repository = new_repository(store)
    fresh = reopened(repository)
    wanted = wanted_of(fresh, back_up(repository, "vm", full_disk(3 * MIB)))
    fresh.chunks.read(wanted[:1])
    store.gets = 0
    fresh.chunks.read([wanted[0], wanted[-1]])
    assert store.gets == 2


def test_unknown_and_missing_chunks(repository: Repository) -> None:
    disk = full_disk(MIB)
    wanted = wanted_of(repository, back_up(repository, "vm", disk))
    with pytest.raises(ObjectMissing, match="no index"):
        repository.chunks.read([WantedChunk(b"x" * 32, 4096, None)])
    assert repository.chunks.locate([HOLE, b"x" * 32]) == [None, None]
    for key in keys_of(repository.sealed.store, Kind.DATA_PACK):
        repository.sealed.store.delete(key)
    with pytest.raises(ObjectMissing):
        reopened(repository).chunks.read(wanted)


@pytest.mark.parametrize("length", [0, -1, 4095, 8192, 1 << 40])
def test_a_length_that_is_not_the_chunks(repository: Repository, length: int) -> None:
    disk = SyntheticDisk(4096)
    disk.write(0, random.Random(1).randbytes(4096))
    (chunk,) = wanted_of(repository, back_up(repository, "vm", disk))
    with pytest.raises(ObjectDamaged):
        repository.chunks.read([chunk._replace(length=length)])


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10), (HEADER.size, 0), (HEADER.size, 43), (HEADER.size + 1, 4140), (1 << 31, 5000),
     (HEADER.size, 0xFFFFFFFF)],
)  # fmt: skip
def test_places_of_a_hostile_index(repository: Repository, offset: int, length: int) -> None:
    disk = SyntheticDisk(4096)
    disk.write(0, random.Random(1).randbytes(4096))
    (chunk,) = wanted_of(repository, back_up(repository, "vm", disk))
    assert chunk.place is not None
    wrong = Location(chunk.place.pack, offset, length)
    with pytest.raises(ObjectDamaged):
        repository.chunks.read_copy(chunk.content_id, 4096, wrong)
    assert repository.chunks.read([chunk._replace(place=wrong)]) == [disk.content(0, 4096)]


def test_one_bad_chunk_does_not_hurt_its_neighbours(repository: Repository) -> None:
    disk = full_disk(MIB)
    wanted = wanted_of(repository, back_up(repository, "vm", disk))
    bad = wanted[3].place
    assert bad is not None
    flip(repository, bad.pack, bad.offset + 30)
    fresh = reopened(repository)
    expected = disk.content(0, MIB)
    at = 0
    for number, chunk in enumerate(wanted):
        if number == 3:
            with pytest.raises(ObjectDamaged):
                fresh.chunks.read([chunk])
        else:
            assert fresh.chunks.read([chunk]) == [expected[at : at + chunk.length]]
        at += chunk.length


def flip(repository: Repository, pack: PackRef, place: int) -> None:
    store, key = repository.sealed.store, object_key(pack.kind, pack.name.hex())
    data = bytearray(store.get(key))
    data[place] ^= 1
    store.delete(key)
    store.put(key, [data])


@pytest.mark.parametrize("place", [0, 5, 6, 7])
def test_a_second_copy_serves_whatever_befell_the_first(repository: Repository, place: int) -> None:
    """Also where the damage looks like a newer format: byte 7 is the version."""
    disk = full_disk(MIB // 4)
    point = back_up(repository, "vm", disk)
    compact(repository, keep_old=True)
    for key in keys_of(repository.sealed.store, Kind.DATA_PACK)[:1]:
        flip(repository, PackRef(Kind.DATA_PACK, bytes.fromhex(key[-32:])), place)
    assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, disk.size)


def compact(repository: Repository, *, keep_old: bool) -> None:
    """Copy every pack verbatim, as a collector does."""
    collector = reopened(repository)
    sealed = collector.sealed
    entries = []
    old_keys = keys_of(sealed.store, Kind.INDEX)
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        for key in keys_of(sealed.store, kind):
            directory = sealed.directory(kind, bytes.fromhex(key[-32:]))
            builder = PackBuilder(kind, random.Random(key).randbytes(16), bytes(16))
            for at, row in enumerate(directory.ids):
                offset, length = int(directory.offsets[at]), int(directory.lengths[at])
                blob = sealed.store.get_range(key, offset, length)
                offset = builder.add(row.tobytes(), blob, int(directory.plain_lengths[at]))
                place = Location(PackRef(kind, builder.name), offset, length)
                entries.append((row.tobytes(), place))
            pieces = builder.finish(directory.data_keys, sealed.keyring.meta_key, sealed.packer)
            sealed.store.put(builder.key, pieces)
            old_keys.append(key)
    collector.index.add(entries)
    if not keep_old:
        for key in old_keys:
            sealed.store.delete(key)


def test_a_mount_of_long_ago_finds_what_was_compacted_since(repository: Repository) -> None:
    disk = full_disk(MIB)
    point = back_up(repository, "vm", disk)
    mount = reopened(repository)
    reader = mount.open_disk(point.disks[0], ChunkCache(0))
    assert reader.read(0, 4096) == disk.content(0, 4096)
    compact(repository, keep_old=False)
    assert reader.read(0, MIB) == disk.content(0, MIB)
    assert read_disk(mount, point.disks[0]) == disk.content(0, MIB)


def test_map_nodes_are_found_after_compaction_too(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    point = back_up(repository, "vm", disk)
    mount = reopened(repository)
    mount.index.refresh()
    compact(repository, keep_old=False)
    assert mount.nodes.load(point.disks[0].root)
