"""Comparing parts of a disk with the parent point: every difference outside the changed list is
found where the sample looks, none elsewhere, and the agent's credential is enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.disk_audit import Audit
from backpoint_repo.errors import SourceError, UsageError
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import as_agent, back_up, new_repository
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20
SIZE = 3 * MIB


def audited(
    repository: Repository,
    disk: SyntheticDisk,
    sample: list[tuple[int, int]],
    changed: list[tuple[int, int]],
) -> Audit | str:
    with as_agent(repository).begin_backup("vm") as session:
        return session.audit(DiskJob("disk0", disk, changed), sample)


@pytest.fixture
def repository() -> Repository:
    return new_repository(MemoryStore())


@settings(max_examples=40, deadline=None)
@given(
    lost=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 5000)), max_size=3),
    told=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 100_000)), max_size=3),
    start=st.integers(0, SIZE - 1),
    length=st.integers(1, SIZE),
)
def test_what_is_found(
    lost: list[tuple[int, int]], told: list[tuple[int, int]], start: int, length: int
) -> None:
    """A found range differs; a byte that differs in the sample and is not told is in one."""
    repository = new_repository(MemoryStore())
    disk = random_disk(SIZE, 1)
    disk.punch(MIB, MIB // 2)
    back_up(repository, "vm", disk)
    before = disk.content(0, SIZE)
    for offset, size in lost:
        disk.write(offset, b"\x5a" * min(size, SIZE - offset))
    now = disk.content(0, SIZE)
    found = audited(repository, disk, [(start, length)], told)
    assert isinstance(found, Audit)
    for offset, size in found.different:
        assert before[offset : offset + size] != now[offset : offset + size]
    unseen = np.frombuffer(before, np.uint8) != np.frombuffer(now, np.uint8)
    unseen[:start] = unseen[start + length :] = False
    reached = 17 * 4096  # a chunk that a told change touches is left out whole
    for offset, size in told:
        unseen[max(0, offset - reached) : offset + size + reached] = False
    for offset, size in found.different:
        unseen[offset : offset + size] = False
    assert not unseen.any()


def test_a_told_change_hides_no_more_of_a_hole_than_itself(repository: Repository) -> None:
    """A hole is as long as it likes: what lies in it beside the told change is still compared."""
    disk = SyntheticDisk(8 * MIB)
    back_up(repository, "vm", disk)
    disk.write(MIB, b"lost")
    disk.write(5 * MIB, b"told")
    found = audited(repository, disk, [(0, 8 * MIB)], [(5 * MIB, 4)])
    assert isinstance(found, Audit)
    assert found.different == ((0, 5 * MIB),)
    assert found.read == 8 * MIB - 4096


def test_an_unchanged_disk_is_clean(repository: Repository) -> None:
    """All of it is read, but what is said to have changed."""
    disk = random_disk(SIZE, 1)
    back_up(repository, "vm", disk)
    assert audited(repository, disk, [(0, SIZE)], []) == Audit(SIZE, ())


def test_of_a_hole_only_the_sample_is_read(repository: Repository) -> None:
    """A large disk's holes do not make a small sample large."""
    disk = SyntheticDisk(64 * MIB)
    back_up(repository, "vm", disk)
    assert audited(repository, disk, [(40 * MIB, MIB)], []) == Audit(MIB, ())
    disk.write(40 * MIB + 5000, b"x")
    found = audited(repository, disk, [(40 * MIB, MIB)], [])
    assert isinstance(found, Audit)
    assert found.different == ((40 * MIB, MIB),)


def test_a_disk_without_parent_cannot_be_audited(repository: Repository) -> None:
    """The reason is said."""
    disk = random_disk(MIB, 1)
    assert audited(repository, disk, [(0, MIB)], []) == "no earlier point holds this disk"
    back_up(repository, "vm", disk)
    larger = SyntheticDisk(2 * MIB)
    found = audited(repository, larger, [(0, MIB)], [])
    assert isinstance(found, str)
    assert "size changed" in found


def test_a_bad_sector_fails_the_audit(repository: Repository) -> None:
    """It is an error of the source, and not a difference."""
    disk = random_disk(MIB, 1)
    back_up(repository, "vm", disk)
    disk.fails_at = 1000
    with pytest.raises(SourceError):
        audited(repository, disk, [(0, MIB)], [])


@pytest.mark.parametrize(
    "capture",
    [
        {1: "x"},
        {"x": b"bytes"},
        {"x": float("nan")},
        {"x": 1 << 70},
        {"x": "\ud800"},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}},
        {"x": list(range(30_000))},
        {"x": {"y": {2: 1}}},
    ],
)
def test_what_is_no_capture_is_refused(repository: Repository, capture: dict[str, object]) -> None:
    """Before anything is published."""
    with repository.begin_backup("vm") as session, pytest.raises(UsageError):
        session.publish(time=None, label="", capture=capture)
    assert repository.catalog.refresh() == []


def test_a_capture_comes_back(repository: Repository) -> None:
    """As it was given."""
    capture = {"a": [1, 2.5, None, True, {"b": "text"}], "c": -(1 << 63)}
    with repository.begin_backup("vm") as session:
        point = session.publish(time=None, label="", capture=capture)
    assert repository.point(point.point_id).capture == capture
