"""Map trees: grafting equals building anew, and costs what changed."""

from __future__ import annotations

import hashlib
import random

import pytest

from backpoint_repo.disk_map import DiskMap, Geometry, NewLeaf, graft
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import BLOCK_SIZE, FANOUT, HOLE, LEAF_BLOCKS, LEAF_SIZE, MAX_DISK_SIZE
from backpoint_repo.map_node import leaf_of


class Nodes:
    """Nodes by their hash; counts what is saved and loaded."""

    def __init__(self) -> None:
        self.plain: dict[bytes, bytes] = {}
        self.saved = 0
        self.loaded = 0

    def save(self, plain: bytes) -> bytes:
        self.saved += 1
        node_id = hashlib.sha256(plain).digest()
        self.plain[node_id] = plain
        return node_id

    def load(self, node_id: bytes) -> bytes:
        self.loaded += 1
        return self.plain[node_id]

    def leaf(self, geometry: Geometry, number: int, seed: int) -> NewLeaf:
        """A leaf with one chunk over all its blocks; seed 0 is a hole."""
        if not seed:
            return NewLeaf(HOLE, 0)
        blocks = geometry.leaf_blocks(number)
        content_id = hashlib.sha256(b"%d %d" % (number, seed)).digest()
        return NewLeaf(self.save(leaf_of([0], [content_id], blocks).encode()), blocks)


@pytest.mark.parametrize(
    ("size", "blocks", "leaves", "height"),
    [
        (0, 0, 0, 0),
        (1, 1, 1, 0),
        (4096, 1, 1, 0),
        (4097, 2, 1, 0),
        (LEAF_SIZE, LEAF_BLOCKS, 1, 0),
        (LEAF_SIZE + 1, LEAF_BLOCKS + 1, 2, 1),
        (FANOUT * LEAF_SIZE, FANOUT * LEAF_BLOCKS, 256, 1),
        (FANOUT * LEAF_SIZE + 1, FANOUT * LEAF_BLOCKS + 1, 257, 2),
        (1 << 46, 1 << 34, 1 << 21, 3),
        (MAX_DISK_SIZE, 1 << 48, 1 << 35, 5),
    ],
)
def test_geometry(size: int, blocks: int, leaves: int, height: int) -> None:
    geometry = Geometry(size)
    assert (geometry.blocks, geometry.leaves, geometry.height) == (blocks, leaves, height)
    if leaves:
        assert geometry.leaf_blocks(0) == min(blocks, LEAF_BLOCKS)
        assert geometry.leaf_blocks(leaves - 1) == (blocks - 1) % LEAF_BLOCKS + 1
    for level in range(1, height + 1):
        nodes = -(-leaves // FANOUT**level)
        below = -(-leaves // FANOUT ** (level - 1))
        last = geometry.children(level, nodes - 1)
        assert (nodes - 1) * FANOUT + last == below
        assert 1 <= last <= FANOUT


@pytest.mark.parametrize("leaves", [1, 2, 255, 256, 257, 700, 66_000])
def test_grafting_equals_building_anew(leaves: int) -> None:
    rng = random.Random(leaves)
    size = leaves * LEAF_SIZE - 5 * BLOCK_SIZE
    geometry, nodes = Geometry(size), Nodes()
    model: dict[int, NewLeaf] = {}
    parent: DiskMap | None = None
    for _ in range(8):
        numbers = {rng.randrange(leaves) for _ in range(rng.choice([1, 2, 30]))}
        changed = {n: nodes.leaf(geometry, n, rng.choice([0, 1, 2, 3])) for n in numbers}
        nodes.saved = 0
        root = graft(geometry, parent, changed, nodes.save)
        assert nodes.saved <= len(numbers) * geometry.height
        model |= changed
        scratch = graft(geometry, None, model, Nodes().save)
        assert root == scratch
        assert root.allocated == sum(leaf.allocated for leaf in model.values())
        parent = DiskMap(size, root.node_id, nodes.load)
        data = {n: leaf.node_id for n, leaf in model.items() if leaf.node_id != HOLE}
        assert dict(parent.leaves()) == data
        assert [n for n, _ in parent.leaves()] == sorted(data)
        for number in [0, leaves - 1, *numbers, rng.randrange(leaves)]:
            assert parent.leaf_id(number) == data.get(number, HOLE)
            assert parent.leaf(number).blocks == geometry.leaf_blocks(number)


def test_unchanged_nodes_are_shared() -> None:
    geometry, nodes = Geometry(600 * LEAF_SIZE), Nodes()
    full = {n: nodes.leaf(geometry, n, 1) for n in range(600)}
    old = DiskMap(geometry.size, graft(geometry, None, full, nodes.save).node_id, nodes.load)
    nodes.loaded = 0
    changed = {300: nodes.leaf(geometry, 300, 2)}
    new = DiskMap(geometry.size, graft(geometry, old, changed, nodes.save).node_id, nodes.load)
    assert nodes.loaded == 2, "the root and the one inner node above the leaf"
    before, after = ({node_id for node_id, _, _ in tree.nodes()} for tree in (old, new))
    assert len(after - before) == 3
    assert len(before & after) == 600 + 3 + 1 - 3


def test_a_map_emptied_again_is_a_hole() -> None:
    geometry, nodes = Geometry(300 * LEAF_SIZE), Nodes()
    root = graft(geometry, None, {5: nodes.leaf(geometry, 5, 1)}, nodes.save)
    disk_map = DiskMap(geometry.size, root.node_id, nodes.load)
    emptied = graft(geometry, disk_map, {5: NewLeaf(HOLE, 0)}, nodes.save)
    assert emptied == NewLeaf(HOLE, 0)
    hole = DiskMap(geometry.size, HOLE, nodes.load)
    assert not list(hole.leaves())
    assert not list(hole.nodes())
    assert hole.leaf(299).allocated == 0


def test_an_empty_disk() -> None:
    assert graft(Geometry(0), None, {}, Nodes().save) == NewLeaf(HOLE, 0)
    empty = DiskMap(0, HOLE, Nodes().load)
    assert not list(empty.leaves())
    assert not list(empty.nodes())


def test_nodes_come_parents_first() -> None:
    geometry, nodes = Geometry(70_000 * LEAF_SIZE), Nodes()
    leaves = {n: nodes.leaf(geometry, n, 1) for n in (0, 255, 256, 65_535, 65_536, 69_999)}
    disk_map = DiskMap(geometry.size, graft(geometry, None, leaves, nodes.save).node_id, nodes.load)
    seen: set[tuple[int, int]] = set()
    for _, level, index in disk_map.nodes():
        assert level == geometry.height or (level + 1, index // FANOUT) in seen
        seen.add((level, index))
    assert sorted(index for level, index in seen if level == 0) == sorted(leaves)


@pytest.mark.parametrize(("size", "root"), [(-1, HOLE), (MAX_DISK_SIZE + 1, HOLE), (1, b"x"),
                                            (1, b"")])  # fmt: skip
def test_impossible_maps(size: int, root: bytes) -> None:
    with pytest.raises(ObjectDamaged):
        DiskMap(size, root, Nodes().load)


def test_a_node_in_the_wrong_place_is_damage() -> None:
    """A root that names a node of another level or of another number of children."""
    geometry, nodes = Geometry(300 * LEAF_SIZE), Nodes()
    leaf = nodes.leaf(geometry, 0, 1)
    root = graft(geometry, None, {0: leaf}, nodes.save).node_id
    for size, node_id in [
        (geometry.size, leaf.node_id),
        (LEAF_SIZE, root),
        (LEAF_SIZE * 900, root),
    ]:
        with pytest.raises(ObjectDamaged):
            DiskMap(size, node_id, nodes.load).leaf(0)
