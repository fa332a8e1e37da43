"""Walks of whole maps where each request waits for a network: leaves come many at a time."""

from __future__ import annotations

import pytest

from backpoint_repo.collecting.marking import Marking
from backpoint_repo.index import ids_of
from backpoint_repo.map_difference import Range, differing_ranges
from backpoint_repo.repository import Repository
from far_store import LANES, FarStore
from small_repository import assert_clean, back_up, new_repository, reopened
from synthetic_disk import SyntheticDisk

LEAF = 32 << 20
LEAVES = 100
CHANGED = range(0, LEAVES, 2)


@pytest.fixture(params=[LANES, 1])
def store(request: pytest.FixtureRequest) -> FarStore:
    """From afar, and, to compare, one of which each request costs next to nothing."""
    return FarStore(request.param)


@pytest.fixture
def repository(store: FarStore) -> Repository:
    return new_repository(store)


def most(store: FarStore, leaves: int) -> int:
    """Requests for nodes that a walk of so many leaves may take: 32 at a time, in up to three packs
    that hold nodes of several points, and the nodes above them."""
    return leaves + 2 if store.lanes == 1 else 3 * -(-leaves // 32) + 2


def full_disk() -> SyntheticDisk:
    disk = SyntheticDisk(LEAVES * LEAF)
    for number in range(LEAVES):
        disk.write(number * LEAF, bytes([number + 1]) * 8192)
    return disk


def change(disk: SyntheticDisk) -> list[tuple[int, int]]:
    """A block in every other leaf."""
    changed = [(number * LEAF + 65536, 4096) for number in CHANGED]
    for number, (offset, length) in zip(CHANGED, changed, strict=True):
        disk.write(offset, bytes([255 - number]) * length)
    return changed


def test_an_increment_and_what_it_changed(store: FarStore, repository: Repository) -> None:
    disk = full_disk()
    before = back_up(repository, "vm", disk)
    changed = change(disk)
    fresh = reopened(repository)
    store.forget()
    after = back_up(fresh, "vm", disk, changed=changed)
    assert store.count("range", "nodes/") <= most(store, len(CHANGED))
    fresh = reopened(repository)
    fresh.index.refresh()
    store.forget()
    maps = [fresh.disk_map(point.disks[0]) for point in (before, after)]
    assert list(differing_ranges(*maps)) == [Range(*place) for place in changed]
    assert store.count("range", "nodes/") <= 2 * most(store, len(CHANGED))
    assert_clean(repository)


def test_a_check_of_points_that_share_most_of_their_maps(
    store: FarStore, repository: Repository
) -> None:
    disk = full_disk()
    back_up(repository, "vm", disk)
    back_up(repository, "vm", disk, changed=change(disk))
    store.forget()
    assert_clean(repository)
    assert store.count("range", "nodes/") <= 2 * most(store, LEAVES)


def test_marking_what_points_need(store: FarStore, repository: Repository) -> None:
    disk = full_disk()
    points = [back_up(repository, "vm", disk)]
    points.append(back_up(repository, "vm", disk, changed=change(disk)))
    fresh = reopened(repository)
    store.forget()
    with Marking(fresh.sealed, fresh.index, fresh.nodes) as marking:
        marking.learn()
        marking.mark_points([point.point_id.hex() for point in points], lambda _: None)
        requests = store.count("range", "nodes/")
        for point in points:
            disk_map = fresh.disk_map(point.disks[0])
            for number, node_id in disk_map.leaves():
                leaf = disk_map.leaf(number)
                needed = [node_id, *(row.tobytes() for row in leaf.ids if row.any())]
                assert marking.live.holds(ids_of(needed)).all()
    assert requests <= most(store, LEAVES + len(CHANGED)) + 2
