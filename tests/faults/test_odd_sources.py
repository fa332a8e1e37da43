"""Sources that fail, shrink, are tiny or changed size, lists that lie, clocks that go back."""

from __future__ import annotations

import random
import threading

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.format import LEAF_SIZE, Kind
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    NOON,
    StandingClock,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk

SIZES = (0, 1, 511, 512, 513, 4095, 4096, 4097, LEAF_SIZE - 1, LEAF_SIZE + 1)
TAIL = 300 << 10


@pytest.fixture
def repository() -> Repository:
    return new_repository(MemoryStore())


def filled(size: int, seed: int = 1) -> SyntheticDisk:
    """Random bytes at the start and up to the very end."""
    disk = SyntheticDisk(size, name=f"{size} bytes")
    rng = random.Random(seed)
    length = min(size, TAIL)
    disk.write(0, rng.randbytes(length))
    disk.write(size - length, rng.randbytes(length))
    return disk


def assert_reads(repository: Repository, point_id: bytes, disk: SyntheticDisk) -> None:
    """As a new process reads it."""
    fresh = reopened(repository)
    (stored,) = fresh.point(point_id).disks
    assert stored.size == disk.size
    assert read_disk(fresh, stored) == disk.content(0, disk.size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tells_holes", [True, False])
def test_every_size(repository: Repository, size: int, tells_holes: bool) -> None:
    disk = filled(size)
    disk.tells_holes = tells_holes
    point = back_up(repository, "odd", disk)
    assert_reads(repository, point.point_id, disk)
    reader = repository.open_disk(point.disks[0], ChunkCache(4 << 20))
    assert bytes(reader.read(size, 100)) == b""
    assert bytes(reader.read(size + 5000, 100)) == b""
    assert bytes(reader.read(max(0, size - 1), 100)) == disk.content(max(0, size - 1), 100)
    assert_clean(repository)


@pytest.mark.parametrize("at", [0, 1, 4096, TAIL - 1, LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + TAIL])
@pytest.mark.parametrize("shrinks", [False, True])
def test_a_source_that_fails_midway(repository: Repository, at: int, shrinks: bool) -> None:
    disk = filled(LEAF_SIZE + 2 * TAIL)
    disk.tells_holes = False
    good = back_up(repository, "odd", disk)
    disk.write(4096, b"another day")
    if shrinks:
        disk.ends_at = at
    else:
        disk.fails_at = at
    with pytest.raises(SourceShrank if shrinks else SourceError):
        back_up(reopened(repository), "odd", disk)
    assert keys_of(repository.sealed.store, Kind.POINT) == [f"points/{good.point_id.hex()}"]
    assert not keys_of(repository.sealed.store, Kind.LEASE)
    disk.ends_at = disk.fails_at = None
    point = back_up(reopened(repository), "odd", disk)
    assert_reads(reopened(repository), point.point_id, disk)
    assert_clean(repository)


@pytest.mark.parametrize(
    ("before", "after"),
    [(old, new) for old in SIZES for new in (0, 1, 4097, LEAF_SIZE + 1) if old != new],
)
def test_a_parent_of_another_size(repository: Repository, before: int, after: int) -> None:
    """A changed list says nothing about what was added or cut off: all is read."""
    back_up(repository, "odd", filled(before))
    disk = filled(after, seed=2)
    point = back_up(reopened(repository), "odd", disk, changed=[(0, 1)])
    assert_reads(reopened(repository), point.point_id, disk)
    assert any("size changed" in warning for warning in point.warnings)
    assert_clean(repository)


@pytest.mark.parametrize(
    "changed",
    [
        [],
        [(0, 0)],
        [(100 << 10, 1)],
        [((1 << 20) - 1, 1), ((1 << 20) - 1, 1 << 40)],
        [(1 << 20, 1), (1 << 62, 1 << 62)],
        [(300 << 10, 8192), (4096, 4096), (4000, 5000), (0, 1)],
        [(0, 1 << 60)],
    ],
)
def test_changed_lists(repository: Repository, changed: list[tuple[int, int]]) -> None:
    """Unsorted, overlapping, empty, and beyond the end."""
    disk = filled(1 << 20)
    back_up(repository, "odd", disk)
    rng = random.Random(3)
    for offset, length in changed:
        there = max(0, min(length, disk.size - offset))
        if there:
            disk.write(offset, rng.randbytes(there))
    point = back_up(reopened(repository), "odd", disk, changed=changed)
    assert not point.warnings
    assert_reads(reopened(repository), point.point_id, disk)
    assert_clean(repository)


def test_a_clock_that_goes_back() -> None:
    """Points keep their order and their parents, whatever times they show."""
    clock = StandingClock(NOON)
    repository = new_repository(MemoryStore(), clock)
    disk = filled(1 << 20)
    made = []
    for number, now in enumerate((NOON, NOON - 1e6, NOON - 2e6, 0.0)):
        clock.now = now
        disk.write(number << 16, b"day %d" % number)
        made.append(back_up(reopened(repository), "odd", disk, changed=[(number << 16, 5)]))
        assert_reads(reopened(repository), made[-1].point_id, disk)
    assert [point.generation for point in made] == [0, 1, 2, 3]
    assert [point.parent for point in made[1:]] == [point.point_id for point in made[:-1]]
    assert_clean(repository)


class _ClosedAfterwards(SyntheticDisk):
    """Its first read fails at once; the others wait until the caller has had time to close it."""

    def __init__(self, size: int) -> None:
        super().__init__(size, tells_holes=False)
        self.entered = threading.Event()
        self.reading = 0
        self.lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if not offset:
            assert self.entered.wait(10), "another leaf is being read meanwhile"
            raise SourceError("the first leaf cannot be read")
        with self.lock:
            self.reading += 1
        self.entered.set()
        super().read_into(offset, buffer)
        with self.lock:
            self.reading -= 1


def test_nobody_reads_a_source_that_has_failed(repository: Repository) -> None:
    """The caller closes it then, and its descriptor may soon be another file's."""
    disk = _ClosedAfterwards(3 * LEAF_SIZE)
    with repository.begin_backup("odd") as session:
        with pytest.raises(SourceError):
            session.store_disk(DiskJob("disk0", disk), lambda _: None)
        assert disk.reading == 0
        read = disk.bytes_read
    assert disk.bytes_read == read
