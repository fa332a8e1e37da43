"""Map nodes that increments made, lost: a whole cut of the disk does not make them again."""

from __future__ import annotations

import random

import pytest

from backpoint_repo.chunking import Cutter
from backpoint_repo.disk_map import Geometry
from backpoint_repo.format import BLOCK_SIZE, LEAF_SIZE, Kind
from backpoint_repo.healing.heal import heal
from backpoint_repo.healing.live_source import LiveSource
from backpoint_repo.leaf_graft import leaf_of_scan
from backpoint_repo.leaf_scan import plan_full, scan_leaf
from backpoint_repo.node_reader import node_id_of
from backpoint_repo.phase_progress import Silent
from backpoint_repo.point import Disk
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import assert_clean, back_up, keys_of, new_repository, read_disk, reopened
from synthetic_disk import SyntheticDisk

SIZE = 2 * LEAF_SIZE


def change(disk: SyntheticDisk, rng: random.Random) -> list[tuple[int, int]]:
    """A few blocks here and there in the first 2 MiB."""
    changed = []
    for _ in range(20):
        offset = rng.randrange(512) * BLOCK_SIZE
        disk.write(offset, rng.randbytes(BLOCK_SIZE))
        changed.append((offset, BLOCK_SIZE))
    return changed


def first_leaf(repository: Repository, disk: Disk) -> bytes:
    return repository.disk_map(disk).leaf_id(0)


def first_leaf_cut_whole(repository: Repository, source: SyntheticDisk) -> bytes:
    keyring = repository.sealed.keyring
    cutter = Cutter(keyring.cut_key, repository.config.chunks)
    plan = next(plan_full(Geometry(source.size), source.extents(0, source.size)))
    buffer = memoryview(bytearray(LEAF_SIZE))
    scanned = scan_leaf(source, plan, buffer, cutter, keyring.chunk_id_key)
    return node_id_of(leaf_of_scan(scanned, None).encode(), keyring.node_id_key)


@pytest.mark.parametrize("lost", ["a leaf", "all nodes of the newest point"])
def test_nodes_of_an_increment_come_back_from_its_parent_and_the_disk(lost: str) -> None:
    store = MemoryStore()
    repository, rng = new_repository(store), random.Random(4)
    disk = SyntheticDisk(SIZE)
    disk.write(0, rng.randbytes(2 << 20))
    disk.write(LEAF_SIZE + BLOCK_SIZE, rng.randbytes(100_000))
    point = back_up(repository, "web", disk)
    while first_leaf(repository, point.disks[0]) == first_leaf_cut_whole(repository, disk):
        before = set(keys_of(store, Kind.NODE_PACK))
        point = back_up(reopened(repository), "web", disk, changed=change(disk, rng))
    (own,) = set(keys_of(store, Kind.NODE_PACK)) - before
    if lost == "a leaf":
        data = bytearray(store.get(own))
        data[60] ^= 1  # in its first blob
        store.delete(own)
        store.put(own, [data])
    else:
        store.delete(own)
    source = LiveSource(repository, disk, quick=lost == "a leaf")
    report = heal(reopened(repository), [source], Silent())
    assert report.whole, report.lost
    assert report.nodes == (1 if lost == "a leaf" else 2)
    fresh = reopened(repository)
    assert read_disk(fresh, fresh.point(point.point_id).disks[0]) == disk.content(0, SIZE)
    assert_clean(repository)
