"""Two maps side by side: every byte that differs is told, and what comes from one chunk is not."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.disk_map import DiskMap, Geometry, NewLeaf, graft
from backpoint_repo.format import BLOCK_SIZE, HOLE, LEAF_BLOCKS, LEAF_SIZE
from backpoint_repo.map_difference import Range, differing_ranges
from backpoint_repo.map_node import leaf_of
from backpoint_repo.store.memory import MemoryStore
from small_repository import assert_clean, back_up, new_repository, read_disk
from synthetic_disk import SyntheticDisk

Blocks = list[tuple[bytes, int]]
"""Of each block, the chunk that it is from and its place in there."""


class Nodes:
    """Nodes by their hash; counts what is loaded."""

    def __init__(self) -> None:
        self.plain: dict[bytes, bytes] = {}
        self.loaded = 0

    def save(self, plain: bytes) -> bytes:
        node_id = hashlib.sha256(plain).digest()
        self.plain[node_id] = plain
        return node_id

    def load(self, node_id: bytes) -> bytes:
        self.loaded += 1
        return self.plain[node_id]


@given(st.data())
def test_ranges_are_those_that_comparing_block_by_block_finds(data: st.DataObject) -> None:
    """For one leaf of each, of any lengths, cut anyhow."""
    nodes = Nodes()
    (one, first), (other, second) = (_drawn(nodes, data) for _ in range(2))
    found = list(differing_ranges(one, other))
    differing = {at for at in range(min(len(first), len(second))) if first[at] != second[at]}
    differing |= set(range(min(len(first), len(second)), max(len(first), len(second))))
    told = [at // BLOCK_SIZE for start, length in found for at in _starts(start, length)]
    assert told == sorted(differing)
    assert all(a.end < b.start for a, b in pairwise(found))
    assert list(differing_ranges(other, one)) == found
    assert not list(differing_ranges(one, one))


@pytest.mark.parametrize("leaves", [1, 2, 256, 257, 66_000])
def test_only_what_lies_above_a_difference_is_loaded(leaves: int) -> None:
    """A disk of any height, with a few leaves changed."""
    chance, nodes = random.Random(leaves), Nodes()
    geometry = Geometry(leaves * LEAF_SIZE - 3 * BLOCK_SIZE)
    model = {at: _full_leaf(nodes, geometry, at, b"a") for at in range(0, leaves, 1 + leaves // 99)}
    old = DiskMap(geometry.size, graft(geometry, None, model, nodes.save).node_id, nodes.load)
    numbers = sorted({chance.randrange(leaves) for _ in range(3)})
    changed = {at: _full_leaf(nodes, geometry, at, b"b") for at in numbers}
    new = DiskMap(geometry.size, graft(geometry, old, changed, nodes.save).node_id, nodes.load)
    nodes.loaded = 0
    found = list(differing_ranges(old, new))
    # To each side, a way down to find the leaf and a second one to read it.
    assert nodes.loaded <= 2 * len(numbers) * (2 * geometry.height + 1)
    told = [start // LEAF_SIZE for r in found for start in range(r.start, r.end, LEAF_SIZE)]
    assert told == numbers
    assert sum(r.length for r in found) == sum(map(geometry.leaf_blocks, numbers)) * BLOCK_SIZE


@pytest.mark.parametrize("leaves", [(1, 300), (200, 300), (255, 257), (300, 66_000), (0, 300)])
def test_disks_of_different_height_share_their_beginning(leaves: tuple[int, int]) -> None:
    """A disk that grew: what it had is the same, what was added differs."""
    nodes = Nodes()
    maps = []
    for count in leaves:
        geometry = Geometry(count * LEAF_SIZE)
        full = {at: _full_leaf(nodes, geometry, at, b"a") for at in range(0, count, 7)}
        root = graft(geometry, None, full, nodes.save).node_id
        maps.append(DiskMap(geometry.size, root, nodes.load))
    small, large = (count * LEAF_SIZE for count in leaves)
    assert list(differing_ranges(*maps)) == [Range(small, large - small)]


def test_stored_disks_differ_where_their_bytes_do() -> None:
    """Disks as a backup cuts them, an odd size and a smaller one: outside the ranges every byte is
    the same."""
    chance = random.Random(5)
    repository = new_repository(MemoryStore())
    before = bytearray(chance.randbytes(3 << 20) + bytes(2 << 20) + chance.randbytes(1_234_567))
    after = bytearray(before)
    for _ in range(12):
        at = chance.randrange(len(before) - 20_000)
        length = chance.randrange(1, 20_000)
        after[at : at + length] = chance.choice([chance.randbytes(length), bytes(length)])
    for content in (after, after[:-70_001], before):
        points = [back_up(repository, "vm", _disk(disk)) for disk in (before, content)]
        ranges = _checked(repository.disk_map(points[0].disks[0]),
                          repository.disk_map(points[1].disks[0]))  # fmt: skip
        one, other = (bytearray(read_disk(repository, point.disks[0])) for point in points)
        assert sum(r.length for r in ranges) < len(before) // 4
        for r in ranges:
            one[r.start : r.end] = other[r.start : r.end] = bytes(r.length)
        common = min(len(one), len(other))
        assert one[:common] == other[:common]
    assert not ranges
    assert_clean(repository)


def _disk(content: bytearray) -> SyntheticDisk:
    disk = SyntheticDisk(len(content))
    disk.write(0, bytes(content))
    return disk


def _checked(one: DiskMap, other: DiskMap) -> list[Range]:
    """In order, apart, inside the larger disk."""
    found = list(differing_ranges(one, other))
    ends = [0, *(r.end for r in found)]
    assert all(r.length > 0 for r in found)
    assert all(end < r.start or end == 0 for end, r in zip(ends, found, strict=False))
    assert ends[-1] <= max(one.geometry.size, other.geometry.size)
    return found


def _starts(start: int, length: int) -> range:
    return range(start, start + length, BLOCK_SIZE)


def _full_leaf(nodes: Nodes, geometry: Geometry, number: int, seed: bytes) -> NewLeaf:
    blocks = geometry.leaf_blocks(number)
    content_id = hashlib.sha256(b"%d %s" % (number, seed)).digest()
    return NewLeaf(nodes.save(leaf_of([0], [content_id], blocks).encode()), blocks)


def _drawn(nodes: Nodes, data: st.DataObject) -> tuple[DiskMap, Blocks]:
    """A disk of one leaf, and its blocks."""
    count = data.draw(st.integers(1, 40) | st.just(LEAF_BLOCKS))
    starts = sorted({0, *data.draw(st.lists(st.integers(0, min(count, 40) - 1), max_size=8))})
    names = st.sampled_from([HOLE, b"a" * 32, b"b" * 32])
    ids = data.draw(st.lists(names, min_size=len(starts), max_size=len(starts)))
    blocks: Blocks = []
    for start, end, name in zip(starts, [*starts[1:], count], ids, strict=True):
        blocks += [(name, 0 if name == HOLE else at) for at in range(end - start)]
    root = nodes.save(leaf_of(starts, ids, count).encode())
    return DiskMap(count * BLOCK_SIZE, root, nodes.load), blocks
