"""What of a leaf is read and cut: widening against a model of block sets, and whole ingests."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.disk_ingest import LEAVES_IN_MEMORY
from backpoint_repo.disk_map import DiskMap, Geometry
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_BLOCKS, LEAF_SIZE
from backpoint_repo.leaf_scan import changed_blocks, plan_changed, plan_full
from backpoint_repo.map_node import Leaf, leaf_of
from backpoint_repo.point import Disk
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import assert_clean, back_up, new_repository, read_disk, reopened
from synthetic_disk import SyntheticDisk, random_disk, scribble

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

byte_ranges = st.lists(
    st.tuples(st.integers(0, 50 * BLOCK_SIZE), st.integers(0, 20 * BLOCK_SIZE)), max_size=12
)


@given(byte_ranges, st.integers(0, 45 * BLOCK_SIZE))
def test_changed_bytes_become_the_blocks_they_touch(
    extents: list[tuple[int, int]], size: int
) -> None:
    touched = {
        byte // BLOCK_SIZE
        for offset, length in extents
        for byte in {*range(offset, min(offset + length, size), 512)}
        | ({min(offset + length, size) - 1} if length and offset < size else set())
    }
    ranges = changed_blocks(extents, size)
    assert {block for start, end in ranges for block in range(start, end)} == touched
    assert all(start < end for start, end in ranges)
    assert all(a.end < b.start for a, b in pairwise(ranges))


def parent_of(starts: list[int], holes: list[bool], blocks: int) -> DiskMap:
    """A map of one leaf with chunks and holes at these places."""
    ids = [HOLE if hole else bytes([1, at % 256]) * 16 for at, hole in enumerate(holes)]
    leaf = leaf_of(starts, ids, blocks)
    return DiskMap(blocks * BLOCK_SIZE, b"\1" * 32, lambda _: leaf.encode())


@st.composite
def leaves(draw: st.DrawFn) -> DiskMap:
    blocks = draw(st.integers(1, 120))
    starts = sorted({0, *draw(st.lists(st.integers(1, max(1, blocks - 1)), max_size=12))})
    starts = [start for start in starts if start < blocks]
    holes = draw(st.lists(st.booleans(), min_size=len(starts), max_size=len(starts)))
    return parent_of(starts, holes, blocks)


@given(leaves(), st.lists(st.tuples(st.integers(0, 130), st.integers(1, 30)), max_size=6))
def test_windows_cover_the_change_and_split_no_chunk(
    parent: DiskMap, changes: list[tuple[int, int]]
) -> None:
    size = parent.geometry.size
    changed = changed_blocks(
        [(start * BLOCK_SIZE, length * BLOCK_SIZE) for start, length in changes], size
    )
    source = SyntheticDisk(size, tells_holes=False)
    plans = list(plan_changed(source, parent, changed))
    asked = {block for start, end in changed for block in range(start, end)}
    assert len(plans) == (1 if asked else 0)
    for plan in plans:
        windows = [set(range(window.start, window.end)) for window in plan.windows]
        covered = set().union(*windows)
        assert asked <= covered
        assert sum(map(len, windows)) == len(covered), "windows overlap"
        assert [w.start for w in plan.windows] == sorted(w.start for w in plan.windows)
        assert_no_chunk_split(parent.leaf(0), covered, asked)


def assert_no_chunk_split(leaf: Leaf, covered: set[int], asked: set[int]) -> None:
    for at in range(len(leaf.starts_list)):
        start, end, content_id = leaf.entry_at(at)
        entry = set(range(start, end))
        if content_id != HOLE:
            assert entry <= covered or not entry & covered
            assert (entry <= covered) == bool(entry & asked), "read more than the change needs"


@pytest.mark.parametrize("tells_holes", [True, False])
def test_full_plan_covers_all_data_once(tells_holes: bool) -> None:
    disk = random_disk(3 * LEAF_SIZE + 12_345, 7, tells_holes=tells_holes)
    geometry = Geometry(disk.size)
    planned: set[int] = set()
    numbers = []
    for plan in plan_full(geometry, disk.extents(0, disk.size)):
        numbers.append(plan.number)
        (window,) = plan.windows
        assert (window.start, window.end) == (0, geometry.leaf_blocks(plan.number))
        for start, end in window.data:
            assert 0 <= start < end <= window.end
            blocks = set(range(plan.number * LEAF_BLOCKS + start, plan.number * LEAF_BLOCKS + end))
            assert not blocks & planned
            planned |= blocks
    assert numbers == sorted(set(numbers))
    assert disk.data_blocks() <= planned


ODD_SIZES = [0, 1, 511, 4095, 4096, 4097, 3 * 4096, 5 * 4096 - 1]
LEAF_EDGES = [LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + 1]


@pytest.mark.parametrize("tells_holes", [True, False])
@pytest.mark.parametrize("size", ODD_SIZES + LEAF_EDGES)
def test_sizes_at_the_edges(repository: Repository, size: int, tells_holes: bool) -> None:
    disk = random_disk(size, size, extents=4, longest=100 * KIB, tells_holes=tells_holes)
    if size:
        disk.write(size - 1, b"!")
    point = back_up(repository, "vm", disk)
    assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, size)
    if size:
        disk.write(size - 1, b"?")
        point = back_up(repository, "vm", disk, changed=[(size - 1, 1)])
        assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, size)
        assert not point.warnings
    assert_clean(repository)


@pytest.mark.parametrize("tells_holes", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_changed_list_equals_a_full_read(seed: int, tells_holes: bool) -> None:
    """Many small changes, in chunks, in holes and across them, day after day."""
    rng = random.Random(seed)
    size = rng.choice([40 * BLOCK_SIZE, 300 * BLOCK_SIZE - 17, LEAF_SIZE + 70 * BLOCK_SIZE + 5])
    repository = new_repository(MemoryStore())
    disk = random_disk(size, seed, extents=5, longest=200 * KIB, tells_holes=tells_holes)
    back_up(repository, "vm", disk)
    for _ in range(6):
        changed = scribble(disk, rng, rng.randint(0, 8), rng.choice([3000, 40 * KIB, 300 * KIB]))
        if rng.random() < 0.5 and size > LEAF_SIZE:
            near = LEAF_SIZE - rng.randint(1, 5 * BLOCK_SIZE)
            disk.write(near, rng.randbytes(9 * BLOCK_SIZE))
            changed.append((near, 9 * BLOCK_SIZE))
        point = back_up(repository, "vm", disk, changed=changed)
        assert not point.warnings
        stored = point.disks[0]
        fresh = reopened(repository)
        assert read_disk(fresh, stored) == disk.content(0, size)
        assert stored.allocated == naive_allocated(fresh.disk_map(stored)) * BLOCK_SIZE
    assert_clean(repository)


def naive_allocated(disk_map: DiskMap) -> int:
    """Blocks in entries that are not holes, counted one leaf after another."""
    total = 0
    for number in range(disk_map.geometry.leaves):
        leaf = disk_map.leaf(number)
        entries = [leaf.entry_at(at) for at in range(len(leaf.starts_list))]
        total += sum(end - start for start, end, found in entries if found != HOLE)
    return total


@pytest.mark.parametrize("hole_blocks", [1, 2, 3])
def test_zeros_named_as_changed_inside_a_hole_are_zeros(
    repository: Repository, hole_blocks: int
) -> None:
    """A trim of what was a hole: nothing is read, so nothing left in a buffer may be taken."""
    leaves = LEAVES_IN_MEMORY + 2
    disk = SyntheticDisk(2 * leaves * LEAF_SIZE)
    disk.write(0, b"the parent must hold something")
    back_up(repository, "vm", disk)
    changed = []
    for leaf in range(leaves):
        data_at = leaf * LEAF_SIZE + 50 * BLOCK_SIZE
        disk.write(data_at, random.Random(leaf).randbytes(100 * BLOCK_SIZE))
        changed.append((data_at, 100 * BLOCK_SIZE))
        hole_at = (leaves + leaf) * LEAF_SIZE + 60 * BLOCK_SIZE
        changed.append((hole_at, hole_blocks * BLOCK_SIZE))
    point = back_up(repository, "vm", disk, changed=changed)
    assert read_disk(repository, point.disks[0]) == disk.content(0, disk.size)
    assert_clean(repository)


@pytest.mark.parametrize("size", [9 * GIB, TIB + 12_345, 100 * TIB])
def test_huge_sparse_disks_cost_what_they_hold(repository: Repository, size: int) -> None:
    rng = random.Random(size)
    disk = SyntheticDisk(size)
    places = [0, size // 3, size - 300_000, *(rng.randrange(size - MIB) for _ in range(5))]
    for place in places:
        disk.write(place, rng.randbytes(200_000))
    point = back_up(repository, "vm", disk)
    assert point.traffic.read < 16 * MIB
    changed = [(place, 100) for place in places]
    for place, length in changed:
        disk.write(place, rng.randbytes(length))
    second = back_up(repository, "vm", disk, changed=changed)
    assert second.traffic.read < 8 * 2 * 16 * BLOCK_SIZE + MIB
    fresh = reopened(repository)
    full = back_up(fresh, "other", disk)
    for stored in (second.disks[0], full.disks[0]):
        for place in places:
            assert_same(fresh, stored, disk, place - 70_000 if place else 0, 400_000)
    assert_clean(repository)


def assert_same(
    repository: Repository, stored: Disk, disk: SyntheticDisk, offset: int, length: int
) -> None:
    reader = repository.open_disk(stored, ChunkCache(8 * MIB))
    assert bytes(reader.read(offset, length)) == disk.content(offset, length)
