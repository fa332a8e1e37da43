"""Points that stand on a given parent, and which one a backup chooses by itself."""

from __future__ import annotations

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.errors import ObjectMissing
from backpoint_repo.format import LEAF_SIZE, Kind
from backpoint_repo.point import ORIGIN, Point
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Store
from small_repository import (
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk, random_disk


def branch_off(repository: Repository, vm: str, parent: Point, disk: SyntheticDisk) -> Point:
    """As a live session commits: what was written at 5000 over the parent's disk."""
    with reopened(repository).begin_backup(vm, parent.point_id) as session:
        session.store_disk(DiskJob("disk0", disk, [(5000, 3)]), lambda _: None)
        return session.publish(time=None, label="", capture={ORIGIN: {}})


def test_a_point_stands_on_the_given_parent_of_another_vm(store: Store) -> None:
    """An increment on an older point of another VM holds that one's content, not the newest's."""
    repository = new_repository(store)
    disk = random_disk(2 * LEAF_SIZE, 1)
    old = back_up(repository, "vm", disk)
    back_up(repository, "vm", random_disk(2 * LEAF_SIZE, 2))
    disk.write(5000, b"new")
    made = branch_off(repository, "copy", old, disk)
    assert (made.vm, made.parent, made.generation) == ("copy", old.point_id, 1)
    assert made.warnings == ()
    assert made.traffic.read < LEAF_SIZE
    assert read_disk(repository, made.disks[0]) == disk.content(0, disk.size)
    assert_clean(repository)


def test_a_given_parent_that_is_gone_is_refused(store: Store) -> None:
    """The error names the point; no lease stays behind."""
    repository = new_repository(store)
    point = back_up(repository, "vm", random_disk(LEAF_SIZE, 1))
    repository.sealed.delete(Kind.POINT, point.point_id.hex())
    with pytest.raises(ObjectMissing, match=point.point_id.hex()):
        reopened(repository).begin_backup("vm", point.point_id)
    assert keys_of(store, Kind.LEASE) == []


def test_production_goes_on_from_its_own_point_not_from_a_branch(store: Store) -> None:
    """What production says has changed since its last backup is grafted onto that backup."""
    repository = new_repository(store)
    disk, other = random_disk(LEAF_SIZE, 1), random_disk(LEAF_SIZE, 1)
    first = back_up(repository, "vm", disk)
    other.write(5000, b"new")
    branch = branch_off(repository, "vm", first, other)
    assert branch.generation > first.generation
    disk.write(90_000, b"production")
    second = back_up(reopened(repository), "vm", disk, changed=[(90_000, 10)])
    assert second.parent == first.point_id
    assert read_disk(repository, second.disks[0]) == disk.content(0, disk.size)
    assert_clean(repository)


def test_a_vm_with_branches_alone_goes_on_from_the_newest(store: Store) -> None:
    """Committed as another VM, the session's points are all there is to stand on."""
    repository = new_repository(store)
    disk = random_disk(LEAF_SIZE, 1)
    first = back_up(repository, "vm", disk)
    disk.write(5000, b"new")
    branch_off(repository, "copy", first, disk)
    newest = branch_off(repository, "copy", branch_off(repository, "copy", first, disk), disk)
    assert back_up(reopened(repository), "copy", disk).parent == newest.point_id
    assert_clean(repository)
