"""Copies held against their originals: what is right passes, what is not is told."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.copying.contract import Watch
from backpoint_repo.copying.resealed import Resealing
from backpoint_repo.copying.verify import verify_copy
from backpoint_repo.copying.verify_content import Pair
from backpoint_repo.format import BLOCK_SIZE, LEAF_SIZE, Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from repo.copying.replica_scene import NamedStore, Scene, fail
from small_repository import as_agent, assert_clean, back_up, new_repository, reopened
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20
DISKS = [random_disk(2 * LEAF_SIZE + 77, 1, longest=99_999), random_disk(MIB, 2)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def other() -> Repository:
    """With other keys, and other chunks."""
    return new_repository(NamedStore("other"), chunks=ChunkParameters(8, 2, 32, 4))


def original(repository: Repository) -> Point:
    with repository.begin_backup("web") as session:
        for number, disk in enumerate(DISKS):
            session.store_disk(DiskJob(f"disk{number}", disk), lambda _: None)
        session.store_file("web.vmx", b"x" * 100_000)
        return session.publish(time=None, label="weekly")


def resealed(source: Repository, target: Repository, point: Point) -> Point:
    return Resealing(source)(source, target, point, None, Watch()).point


class Progress:
    """What it was told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []
        self.done = 0

    def phase(self, name: str, total: int) -> None:
        self.phases.append((name, total))

    def advance(self, steps: int) -> None:
        self.done += steps


def spoil_chunk(repository: Repository, point: Point, number: int) -> bytes:
    """Change a byte of some chunk's blob; its id."""
    fresh = reopened(repository)
    fresh.index.refresh()
    leaf = fresh.disk_map(point.disks[0]).leaf(0)
    ids = [bytes(row) for row in leaf.ids if row.any()]
    (place,) = fresh.index.copies(ids[number])
    spoil(repository, place.pack, place.offset + 30)
    return ids[number]


def spoil(repository: Repository, pack: PackRef, at: int) -> None:
    key, store = object_key(pack.kind, pack.name.hex()), repository.sealed.store
    data = bytearray(store.get(key))
    data[at] ^= 1
    store.delete(key)
    store.put(key, [bytes(data)])


def test_a_verbatim_copy_that_is_right(scene: Scene) -> None:
    """Agents can tell, and are told how far it is."""
    point = original(scene.source)
    copy = scene.copy(point).point
    progress, source = Progress(), as_agent(scene.source)
    assert verify_copy(source, scene.target, point, copy, progress, fail) == []
    assert progress.phases == [("verifying disk0", DISKS[0].size), ("verifying disk1", MIB)]
    assert progress.done == DISKS[0].size + MIB
    assert_clean(scene.owned())


def test_what_was_spoilt_on_the_way_is_told(scene: Scene) -> None:
    """It is read back from the store, though the copier had it in memory."""
    point = original(scene.source)
    copy = scene.copy(point).point
    chunk = spoil_chunk(scene.owned(), copy, 1)
    (problem,) = verify_copy(as_agent(scene.source), scene.target, point, copy, None, fail)
    assert problem.startswith(f"disk disk0: chunk {chunk.hex()[:16]} has no good copy in there")
    assert verify_copy(as_agent(scene.source), scene.target, point, copy) == [problem]


def test_a_node_that_is_gone_is_told(scene: Scene) -> None:
    point = original(scene.source)
    copy = scene.copy(point).point
    store = scene.target.sealed.store
    for found in list(store.list("nodes/")):
        store.delete(found.key)
    problems = verify_copy(as_agent(scene.source), scene.target, point, copy)
    assert [problem.split(" map ")[0] for problem in problems] == ["disk disk0:", "disk disk1:"]


def test_a_record_that_says_something_else_is_told(scene: Scene) -> None:
    point = original(scene.source)
    copy = scene.copy(point).point
    forged = replace(copy, label="daily", disks=copy.disks[:1], files=())
    problems = verify_copy(as_agent(scene.source), scene.target, point, forged)
    assert problems == [
        "its label is another than the original's",
        "disk disk1 is missing in one of both, or has another size",
        "file web.vmx is missing in one of both, or has another size",
        "the maps of its disks are others than those of the original",
        "its configuration files are others than those of the original",
    ]


def test_what_the_replica_had_by_itself(scene: Scene) -> None:
    """Sealed by a backup of its own under another key: the owner can compare it, agents say that
    they cannot."""
    back_up(scene.target, "own", DISKS[0])
    point = original(scene.source)
    copy = scene.copy(point).point
    told: list[str] = []
    assert verify_copy(as_agent(scene.source), scene.target, point, copy, None, told.append) == []
    assert ["lay there before" in message for message in told] == [True]
    assert verify_copy(scene.source, scene.owned(), point, copy, None, fail) == []


def test_wrong_content_under_a_right_id_is_told_to_the_owner(scene: Scene) -> None:
    """Of a hostile agent of the replica, who was there first."""
    disk = SyntheticDisk(LEAF_SIZE, name="one")
    disk.write(0, random.Random(4).randbytes(BLOCK_SIZE))
    point = back_up(scene.source, "vm", disk)
    chunk = scene.source.disk_map(point.disks[0]).leaf(0).entry_at(0)[2]
    with scene.target.begin_backup("forger") as session:
        session._writer.finish(session._writer.start([chunk], lambda _: bytes(BLOCK_SIZE)))
        session.publish(time=None, label="")
    copy = scene.copy(point).point
    (problem,) = verify_copy(scene.source, scene.owned(), point, copy)
    assert "holds something else" in problem


def test_a_resealed_copy_that_is_right(scene: Scene, other: Repository) -> None:
    point = original(scene.source)
    copy = resealed(scene.source, other, point)
    progress = Progress()
    assert verify_copy(scene.source, reopened(other), point, copy, progress, fail) == []
    assert progress.done == DISKS[0].size + MIB
    assert_clean(other)


def test_a_resealed_copy_of_something_else(scene: Scene, other: Repository) -> None:
    """One bit of the disk, and one of a file."""
    point = original(scene.source)
    changed = random_disk(2 * LEAF_SIZE + 77, 1, longest=99_999)
    at = min(changed.data_blocks()) * BLOCK_SIZE + 5
    changed.write(at, bytes([changed.content(at, 1)[0] ^ 1]))
    with other.begin_backup("web") as session:
        session.store_disk(DiskJob("disk0", changed), lambda _: None)
        session.store_disk(DiskJob("disk1", DISKS[1]), lambda _: None)
        session.store_file("web.vmx", b"y" + b"x" * 99_999)
        copy = session.publish(time=None, label="weekly")
    problems = verify_copy(scene.source, other, point, copy)
    assert len(problems) == 2
    assert problems[0].startswith("disk disk0: differs between ")
    assert problems[1] == "file web.vmx differs"


def test_a_resealed_copy_that_rots_is_told(scene: Scene, other: Repository) -> None:
    point = original(scene.source)
    copy = resealed(scene.source, other, point)
    assert verify_copy(scene.source, other, point, copy) == []
    spoil_chunk(other, copy, 0)
    (problem,) = verify_copy(scene.source, other, point, copy)
    assert problem.startswith("disk disk0: between ")


def test_without_an_owner_it_is_told_what_was_not_compared(scene: Scene, other: Repository) -> None:
    point = original(scene.source)
    copy = resealed(scene.source, other, point)
    told: list[str] = []
    agent = as_agent(other)
    assert verify_copy(scene.source, agent, point, copy, None, told.append) == []
    assert ["was not compared" in message for message in told] == [True]
    spoil_chunk(other, copy, 0)
    assert len(verify_copy(scene.source, agent, point, copy)) == 1


def test_problems_are_not_told_without_end(scene: Scene, other: Repository) -> None:
    point = back_up(scene.source, "web", random_disk(40 * LEAF_SIZE, 5, extents=200, longest=9_999))
    with other.begin_backup("web") as session:
        empty = SyntheticDisk(40 * LEAF_SIZE, name="empty")
        session.store_disk(DiskJob("disk0", empty), lambda _: None)
        copy = session.publish(time=None, label="")
    assert len(verify_copy(scene.source, other, point, copy)) == 20


@pytest.mark.parametrize("verbatim", [True, False])
def test_what_was_compared_beside_is_not_read_again(
    scene: Scene, other: Repository, verbatim: bool
) -> None:
    """Rot that came to shared content since then is not seen; to what is new, it is."""
    disk = random_disk(2 * LEAF_SIZE, 1, longest=99_999)
    points, copies, target = [], [], scene.owned() if verbatim else other
    for _ in range(2):
        points.append(back_up(scene.source, "vm", disk))
        if verbatim:
            copies.append(scene.copy(points[-1]).point)
        else:
            copies.append(resealed(scene.source, other, points[-1]))
        disk.write(LEAF_SIZE, random.Random(9).randbytes(50_000))
    spoil_chunk(target, copies[1], 0)
    beside = Pair(points[0], copies[0])
    second = scene.source, target, points[1], copies[1]
    assert verify_copy(*second, None, fail, beside) == []
    assert len(verify_copy(*second)) == 1
    fresh = reopened(target)
    fresh.index.refresh()
    leaf = fresh.disk_map(copies[1].disks[0]).leaf(1)
    (place,) = fresh.index.copies(next(bytes(row) for row in leaf.ids if row.any()))
    spoil(target, place.pack, place.offset + 30)
    assert len(verify_copy(*second, None, fail, beside)) == 1


def test_no_kind_of_object_is_left_behind(scene: Scene) -> None:
    """Verifying writes nothing."""
    point = original(scene.source)
    copy = scene.copy(point).point
    before = list(scene.target.sealed.store.list(""))
    verify_copy(as_agent(scene.source), scene.target, point, copy)
    assert list(scene.target.sealed.store.list("")) == before
    assert not [key for key, _ in before if key.startswith(object_key(Kind.LEASE, ""))]
