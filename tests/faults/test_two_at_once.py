"""Two backups at once, of one VM or of two, of equal data or not: both succeed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from backpoint_repo.backup_session import BackupSession, DiskJob
from backpoint_repo.point import Point
from backpoint_repo.repository import open_repository
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from faults.other_process import back_up_often, disk_of, exit_code, start
from small_repository import PASSPHRASE, assert_clean, back_up, new_repository, read_disk

SAME_OR_NOT = pytest.mark.parametrize("vms", [("web", "web"), ("web", "mail")], ids="-".join)
EQUAL_OR_NOT = pytest.mark.parametrize("seeds", [(1, 1), (1, 2)], ids=["equal", "distinct"])


def assert_reads(store: Store, point: Point, *seeds: int) -> None:
    repository = open_repository(store, PASSPHRASE)
    for stored, seed in zip(point.disks, seeds, strict=True):
        wanted = disk_of(seed)
        assert read_disk(repository, stored) == wanted.content(0, wanted.size)


@SAME_OR_NOT
@EQUAL_OR_NOT
def test_interleaved_step_by_step(vms: tuple[str, str], seeds: tuple[int, int]) -> None:
    """Begin, begin, store, store, publish, publish: neither knows of the other."""
    store = MemoryStore()
    back_up(new_repository(store), "web", disk_of(9))
    sessions = [open_repository(store, PASSPHRASE).begin_backup(vm) for vm in vms]
    points = []
    for number in (0, 1):
        for session, seed in zip(sessions, (seeds[number], seeds[1 - number]), strict=True):
            session.store_disk(DiskJob(f"disk{number}", disk_of(seed)), lambda _: None)
    for session in sessions:
        with session:
            points.append(session.publish(time=None, label=""))
    assert_reads(store, points[0], *seeds)
    assert_reads(store, points[1], *reversed(seeds))
    third = back_up(open_repository(store, PASSPHRASE), vms[0], *map(disk_of, seeds))
    assert third.traffic.stored < 64 << 10, "either's chunks are found again"
    assert_clean(open_repository(store, PASSPHRASE))


@SAME_OR_NOT
@EQUAL_OR_NOT
@pytest.mark.parametrize("shared", [False, True], ids=["own handle", "one handle"])
def test_threads(
    tmp_path: Path, vms: tuple[str, str], seeds: tuple[int, int], shared: bool
) -> None:
    """Two threads that begin together; with one repository object between them, or one each."""
    store = LocalStore(tmp_path / "repository")
    repository = new_repository(store)
    gate = threading.Barrier(2, timeout=30)
    points: dict[int, Point] = {}

    def work(number: int) -> None:
        own = repository if shared else open_repository(store, PASSPHRASE)
        gate.wait()
        session: BackupSession
        with own.begin_backup(vms[number]) as session:
            session.store_disk(DiskJob("disk0", disk_of(seeds[number])), lambda _: None)
            gate.wait()
            points[number] = session.publish(time=None, label=str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(points) == [0, 1]
    assert len(open_repository(store, PASSPHRASE).catalog.refresh()) == 2
    for number, point in points.items():
        assert_reads(store, point, seeds[number])
    assert_clean(open_repository(store, PASSPHRASE))


@SAME_OR_NOT
def test_processes(tmp_path: Path, vms: tuple[str, str]) -> None:
    root = tmp_path / "repository"
    new_repository(LocalStore(root))
    seeds = ([1, 2, 3, 4], [4, 2, 1, 5])
    processes = [start(back_up_often, root, vm, own) for vm, own in zip(vms, seeds, strict=True)]
    assert [exit_code(process) for process in processes] == [0, 0]
    repository = open_repository(LocalStore(root), PASSPHRASE)
    summaries = repository.catalog.refresh()
    assert len(summaries) == 8
    read = sorted(
        read_disk(repository, repository.point(summary.point_id).disks[0]) for summary in summaries
    )
    wanted = sorted(disk_of(seed).content(0, 600 << 10) for own in seeds for seed in own)
    assert read == wanted
    assert_clean(repository)
