"""Reads of a stored disk: any offset and length, from memory where possible, holes for nothing."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.format import LEAF_SIZE
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import back_up, new_repository, reopened
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20
SIZE = LEAF_SIZE + 3 * MIB + 777


@pytest.fixture(scope="module")
def disk() -> SyntheticDisk:
    disk = random_disk(SIZE, 5, extents=8)
    disk.write(LEAF_SIZE - 50_000, random.Random(1).randbytes(100_000))
    disk.write(SIZE - 10, b"the end..!")
    return disk


@pytest.fixture(scope="module")
def stored(disk: SyntheticDisk) -> Repository:
    repository = new_repository(MemoryStore())
    back_up(repository, "vm", disk)
    return repository


def reader_of(stored: Repository, cache: int = 64 * MIB) -> ImageReader:
    fresh = reopened(stored)
    (summary,) = fresh.catalog.refresh()
    return fresh.open_disk(fresh.point(summary.point_id).disks[0], ChunkCache(cache))


@given(st.integers(0, SIZE + 5000), st.integers(0, 200_000), st.booleans())
def test_any_range(
    disk: SyntheticDisk, stored: Repository, offset: int, length: int, near_border: bool
) -> None:
    if near_border:
        offset = LEAF_SIZE - 60_000 + offset % 120_000
    reader = reader_of(stored)
    expected = disk.content(offset, length)
    assert reader.read(offset, length) == expected
    assert reader.read_cached(offset, length) == expected


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 1 << 62])
def test_behind_the_end(stored: Repository, offset: int) -> None:
    reader = reader_of(stored)
    assert reader.read(offset, 100) == b""
    assert reader.read_cached(offset, 100) == b""
    assert list(reader.stretches(offset, 100)) == []
    reader.prefetch(offset, 100)


def test_nothing_is_fetched_by_read_cached(stored: Repository, disk: SyntheticDisk) -> None:
    reader = reader_of(stored)
    place = LEAF_SIZE - 20_000
    assert reader.read_cached(place, 40_000) is None
    reader.prefetch(place, 40_000)
    assert reader.read_cached(place, 40_000) == disk.content(place, 40_000)


def test_with_a_cache_of_nothing(stored: Repository, disk: SyntheticDisk) -> None:
    reader = reader_of(stored, cache=0)
    assert reader.read(0, SIZE) == disk.content(0, SIZE)
    data = min(disk.data_blocks()) * 4096
    assert reader.read_cached(data, 1) is None


def test_stretches_cover_and_tell_holes(stored: Repository, disk: SyntheticDisk) -> None:
    reader = reader_of(stored, cache=0)
    stretches = list(reader.stretches(0, SIZE))
    assert stretches[0].offset == 0
    assert sum(stretch.length for stretch in stretches) == SIZE
    for one, following in pairwise(stretches):
        assert one.offset + one.length == following.offset
        assert one.data != following.data
    for offset, length, data in stretches:
        if not data:
            assert not any(disk.content(offset, length))
    assert sum(length for _, length, data in stretches if data) < SIZE // 2
    (inside,) = reader.stretches(stretches[1].offset + 1, 1)
    assert inside == (stretches[1].offset + 1, 1, stretches[1].data)


def test_many_readers_at_once(stored: Repository, disk: SyntheticDisk) -> None:
    reader = reader_of(stored, cache=2 * MIB)

    def read(seed: int) -> bool:
        rng = random.Random(seed)
        for _ in range(30):
            offset, length = rng.randrange(SIZE), rng.randrange(400_000)
            found = reader.read_cached(offset, length)
            if found is None:
                found = reader.read(offset, length)
            if found != disk.content(offset, length):
                return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(read, range(6)))


def test_a_huge_hole_costs_little(repository: Repository) -> None:
    point = back_up(repository, "vm", SyntheticDisk(1 << 46))
    reader = repository.open_disk(point.disks[0], ChunkCache(MIB))
    assert not any(reader.read((1 << 46) - 5 * MIB, 9 * MIB))
    assert len(reader.read((1 << 46) - 5 * MIB, 9 * MIB)) == 5 * MIB
