"""Disks that became longer or shorter: the point holds what they hold, and little was read."""

from __future__ import annotations

import random

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.format import BLOCK_SIZE, FANOUT, LEAF_SIZE
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import assert_clean, back_up, new_repository, read_disk, reopened
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20
SIZES = (
    *(0, 1, BLOCK_SIZE, 5 * BLOCK_SIZE - 512, 40 * BLOCK_SIZE, LEAF_SIZE - 512, LEAF_SIZE),
    *(LEAF_SIZE + 3 * BLOCK_SIZE, 3 * LEAF_SIZE, 3 * LEAF_SIZE + 777),
)


def resized(disk: SyntheticDisk, size: int) -> SyntheticDisk:
    """The same bytes as far as both reach."""
    other = SyntheticDisk(size)
    for block in disk.data_blocks():
        offset = block * BLOCK_SIZE
        if offset < size:
            other.write(offset, disk.content(offset, min(BLOCK_SIZE, size - offset)))
    return other


def store(
    repository: Repository, parent: Point, disk: SyntheticDisk, changed: list[tuple[int, int]]
) -> Point:
    """As a point that may have another size than its parent."""
    with reopened(repository).begin_backup("vm", parent.point_id) as session:
        job = DiskJob("disk0", disk, changed, resizable=True)
        session.store_disk(job, lambda _: None)
        return session.publish(time=None, label="")


@pytest.mark.parametrize("seed", range(30))
def test_a_resized_disk_is_its_map_fitted_and_what_was_written(seed: int) -> None:
    """From any size to any other and on, with writes before and behind the old end."""
    rng = random.Random(seed)
    repository = new_repository(MemoryStore())
    disk = random_disk(rng.choice(SIZES), seed, extents=6, longest=300_000)
    point = back_up(repository, "vm", disk)
    for _ in range(4):
        disk = resized(disk, rng.choice(SIZES))
        changed = []
        for _ in range(rng.randrange(3)):
            offset = rng.randrange(disk.size + 1)
            data = rng.randbytes(min(rng.randrange(20_000), disk.size - offset))
            disk.write(offset, data)
            changed.append((offset, len(data)))
        point = store(repository, point, disk, changed)
        assert point.warnings == ()
        found = point.disks[0]
        assert found.size == disk.size
        assert read_disk(reopened(repository), found) == disk.content(0, disk.size)
        assert found.allocated >= len(disk.data_blocks()) * BLOCK_SIZE
    assert_clean(repository)


@pytest.mark.parametrize("factor", [2, FANOUT])
def test_a_large_disk_that_grows_is_not_read(factor: int) -> None:
    """The map gets another level; of the disk only what was written is read."""
    repository = new_repository(MemoryStore())
    disk = random_disk(FANOUT * LEAF_SIZE - BLOCK_SIZE, 1, extents=8, longest=4 * MIB)
    point = back_up(repository, "vm", disk)
    larger = resized(disk, disk.size * factor + 512)
    larger.write(larger.size - 512, b"end")
    grown = store(repository, point, larger, [(larger.size - 512, 3)])
    assert grown.traffic.read <= MIB
    fresh = reopened(repository)
    for block in larger.data_blocks():
        offset = block * BLOCK_SIZE
        assert fresh_bytes(fresh, grown, offset) == larger.content(offset, BLOCK_SIZE)
    shrunk = store(repository, grown, disk, [])
    assert shrunk.disks[0].root == point.disks[0].root
    assert_clean(repository)


def fresh_bytes(repository: Repository, point: Point, offset: int) -> bytes:
    """One block of the first disk."""
    reader = repository.open_disk(point.disks[0], ChunkCache(MIB))
    return bytes(reader.read(offset, BLOCK_SIZE))


def test_without_leave_a_resized_disk_is_read_in_full() -> None:
    """A changed-block list of a hypervisor says nothing of a size that changed."""
    repository = new_repository(MemoryStore())
    disk = random_disk(LEAF_SIZE, 1)
    back_up(repository, "vm", disk)
    larger = resized(disk, 2 * LEAF_SIZE)
    point = back_up(repository, "vm", larger, changed=[])
    assert "size changed" in point.warnings[0]
    assert read_disk(repository, point.disks[0]) == larger.content(0, larger.size)
    assert_clean(repository)
