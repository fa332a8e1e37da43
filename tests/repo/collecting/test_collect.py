"""Collecting: what nothing needs goes, and everything that something needs stays readable."""

from __future__ import annotations

import random

from backpoint_repo.check import Silent
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectReport, CollectTerms
from backpoint_repo.format import BLOCK_SIZE, Kind
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    as_agent,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk

SIZE = 2 << 20
CHUNK_MAX = 16 * BLOCK_SIZE


def filled_disk(seed: int, size: int = SIZE) -> SyntheticDisk:
    disk = SyntheticDisk(size)
    disk.write(0, random.Random(seed).randbytes(size))
    return disk


def collected(repository: Repository, wait_s: float = 0.0) -> CollectReport:
    """As the agent's own process does it."""
    return collect(as_agent(repository), CollectTerms(wait_s=wait_s), Silent(), lambda _: None)


def remove(repository: Repository, *points: Point) -> None:
    for point in points:
        repository.sealed.delete(Kind.POINT, point.point_id.hex())


def stored(store: Store) -> int:
    return sum(found.size for found in store.list(""))


def assert_reads(repository: Repository, point: Point, content: bytes) -> None:
    owner = reopened(repository)
    assert read_disk(owner, owner.point(point.point_id).disks[0]) == content


def test_removed_points_give_their_space_back() -> None:
    """Dead packs go whole, half-dead ones are compacted with the agent credential alone."""
    repository = new_repository(MemoryStore())
    disk = filled_disk(1)
    first = back_up(repository, "a", disk)
    disk.write(0, random.Random(2).randbytes(SIZE // 2))
    second = back_up(repository, "a", disk, changed=[(0, SIZE // 2)])
    other = back_up(repository, "b", filled_disk(3))
    before = stored(repository.sealed.store)
    remove(repository, first, other)
    report = collected(repository)
    # Where the border between the halves is cut depends on the repository's keys.
    assert abs(report.copied - SIZE // 2) < CHUNK_MAX + 5000
    freed = before - stored(repository.sealed.store)
    assert abs(freed - 3 * SIZE // 2) < CHUNK_MAX + 50000
    assert_reads(repository, second, disk.content(0, SIZE))
    assert_clean(repository)
    again = collected(repository)
    assert (again.epoch, again.freed, again.copied) == (None, 0, 0)
    assert keys_of(repository.sealed.store, Kind.LEASE) == []
