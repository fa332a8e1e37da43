"""Maps that name one node in every place they have: nobody walks it again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from backpoint_repo.disk_map import DiskMap
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.exclusions import Exclusions
from backpoint_repo.format import BLOCK_SIZE, FANOUT, LEAF_BLOCKS, LEAF_SIZE
from backpoint_repo.index import Index
from backpoint_repo.lost_ranges import lost_ranges
from backpoint_repo.map_node import Inner, leaf_of
from backpoint_repo.point import Disk, Point
from backpoint_repo.point_structure import StructureProof
from backpoint_repo.repository import Repository
from small_repository import back_up, reopened
from synthetic_disk import SyntheticDisk

ENDLESS = LEAF_SIZE * FANOUT**4 * 8
LOST = b"l" * 32


@pytest.fixture
def point(repository: Repository) -> Point:
    disk = SyntheticDisk(LEAF_SIZE, name="one chunk")
    disk.write(0, b"y")
    return back_up(repository, "vm", disk)


@pytest.fixture
def chunk(repository: Repository, point: Point) -> bytes:
    """A chunk that is there."""
    return repository.disk_map(point.disks[0]).leaf(0).entry_at(0)[2]


def made_of(repository: Repository, chunk: bytes, size: int) -> Disk:
    """A disk all of whose leaves are the same one, which begins with this chunk and goes on with
    it."""
    with repository.begin_backup("made up") as session:
        save = session._writer.save_node
        node_id = save(leaf_of([0], [chunk], LEAF_BLOCKS).encode())
        nodes, level = size // LEAF_SIZE, 0
        while nodes > 1:
            children, level = min(FANOUT, nodes), level + 1
            ids = np.frombuffer(node_id * children, np.uint8).reshape(-1, 32)
            node_id = save(Inner(level, np.full(children, LEAF_BLOCKS, np.uint64), ids).encode())
            nodes //= children
        session._writer.flush()
    return Disk("made up", size, node_id, size, "nowhere")


def with_losses(repository: Repository) -> Index:
    """An index that knows of a loss, of whatever kind."""
    index = reopened(repository).index
    index.refresh()
    index.exclude(Exclusions(damaged=frozenset({(LOST, next(iter(index.packs())))})))
    assert index.has_losses()
    return index


def ranges(repository: Repository, disk: Disk, index: Index) -> Iterator[tuple[int, int]]:
    return lost_ranges(DiskMap(disk.size, disk.root, repository.nodes.load), index)


@pytest.mark.timeout(60)
def test_what_is_whole_is_looked_at_once(
    repository: Repository, point: Point, chunk: bytes
) -> None:
    disk = made_of(repository, chunk, ENDLESS)
    assert not list(ranges(repository, disk, with_losses(repository)))
    proof = StructureProof(reopened(repository))
    structure = proof.look(replace(point, disks=(disk,)))
    assert (structure.problems, structure.nodes, structure.chunks) == ((), 6, 1)


@pytest.mark.timeout(60)
def test_a_gap_that_hangs_everywhere_is_told(repository: Repository, point: Point) -> None:
    disk = made_of(repository, LOST, ENDLESS)
    proof = StructureProof(reopened(repository))
    structure = proof.look(replace(point, disks=(disk,)))
    (problem,) = structure.problems
    assert problem == f"made up: bytes 0 to {LEAF_SIZE} are in no pack"


def test_losses_are_found_wherever_they_hang(
    repository: Repository, point: Point, chunk: bytes
) -> None:
    """A leaf that is lost is read again in each of its places."""
    index = with_losses(repository)
    disk = made_of(repository, LOST, 4 * LEAF_SIZE)
    index.refresh()
    found = list(ranges(repository, disk, index))
    assert found == [(at * LEAF_SIZE, LEAF_BLOCKS * BLOCK_SIZE) for at in range(4)]
    whole = made_of(repository, chunk, 4 * LEAF_SIZE)
    index.refresh()
    assert not list(ranges(repository, whole, index))


def test_what_is_whole_under_one_disk_is_not_under_a_smaller_one(
    repository: Repository, point: Point, chunk: bytes
) -> None:
    """The last leaf of a disk that ends within it is another one, and the map has a gap."""
    disk = made_of(repository, chunk, 4 * LEAF_SIZE)
    shorter = Disk("cut", 4 * LEAF_SIZE - BLOCK_SIZE, disk.root, 0, "nowhere")
    structure = StructureProof(reopened(repository)).look(replace(point, disks=(shorter,)))
    assert len(structure.problems) == 1
    assert "its map has a gap" in structure.problems[0]


def test_a_node_without_a_good_copy_is_no_ground_to_stand_on(
    repository: Repository, point: Point
) -> None:
    index = with_losses(repository)
    disk = Disk("gone", 4 * LEAF_SIZE, b"n" * 32, 0, "nowhere")
    with pytest.raises(ObjectMissing, match="has no good copy"):
        list(ranges(repository, disk, index))
