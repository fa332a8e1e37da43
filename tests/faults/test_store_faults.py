"""A store that is full, gone or read-only: at every call, and on real file systems."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.errors import StoreFull, StoreReadOnly, StoreUnavailable
from backpoint_repo.repository import open_repository
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from faults.failing_store import AFTER, BEFORE, FailingStore
from faults.other_process import disk_of
from small_repository import (
    PASSPHRASE,
    StandingClock,
    assert_clean,
    back_up,
    new_repository,
    read_disk,
)

MIB = 1 << 20
FAULTS = (StoreFull, StoreUnavailable, StoreReadOnly)


def raising(fault: type[StoreUnavailable]) -> Callable[[], None]:
    def fail() -> None:
        raise fault("as the test wants it")

    return fail


def one_point() -> MemoryStore:
    store = MemoryStore()
    back_up(new_repository(store), "web", disk_of(1))
    return store


def calls_of_a_backup() -> int:
    store = FailingStore(one_point(), 0, lambda: None)
    back_up(open_repository(store, PASSPHRASE, StandingClock()), "web", disk_of(2))
    return len(store.calls)


CALLS = calls_of_a_backup()


@pytest.mark.parametrize("stays", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("moment", [BEFORE, AFTER])
@pytest.mark.parametrize("fault", FAULTS)
def test_at_every_call(fault: type[StoreUnavailable], moment: str, stays: bool) -> None:
    """Either that error and no point, or a whole point; the next backup is fine either way."""
    outcomes = set()
    for at in range(1, CALLS + 1):
        inner = one_point()
        store = FailingStore(inner, at, raising(fault), moment, stays=stays)
        published = failed = False
        try:
            back_up(open_repository(store, PASSPHRASE, StandingClock()), "web", disk_of(2))
            published = True
        except fault:
            failed = True
        points = len(open_repository(inner, PASSPHRASE).catalog.refresh())
        method, key = store.calls[at - 1]
        arrived = moment == AFTER and method == "put" and key.startswith("points/")
        assert points == (2 if published or arrived else 1), (method, key)
        outcomes.add(failed)
        repository = open_repository(inner, PASSPHRASE, StandingClock())
        assert_clean(repository)
        point = back_up(repository, "web", disk_of(2))
        wanted = disk_of(2)
        assert read_disk(repository, point.disks[0]) == wanted.content(0, wanted.size)
        assert_clean(repository)
    assert outcomes == {True, False}, "some calls matter, the last ones do not"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "volume"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "backpoint-test", place], check=True)
    yield place
    gc.collect()  # stores keep descriptors open until they are let go of
    subprocess.run(["umount", place], check=True)


def remount(volume: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", volume], check=True)


def test_a_full_file_system(volume: Path) -> None:
    root = volume / "repository"
    store = LocalStore(root)
    first = back_up(new_repository(store), "web", disk_of(1))
    large = disk_of(2, 8 * MIB)
    for _ in range(2):
        with pytest.raises(StoreFull):
            back_up(open_repository(LocalStore(root), PASSPHRASE), "web", large)
    repository = open_repository(LocalStore(root), PASSPHRASE)
    assert len(repository.catalog.refresh()) == 1
    assert not list((root / "tmp").iterdir()), "a failed put frees its space"
    assert_clean(repository)
    remount(volume, "size=32M")
    second = back_up(open_repository(LocalStore(root), PASSPHRASE), "web", large)
    again = open_repository(LocalStore(root), PASSPHRASE)
    assert read_disk(again, second.disks[0]) == large.content(0, large.size)
    assert read_disk(again, first.disks[0]) == disk_of(1).content(0, first.size)
    assert_clean(again)


def test_check_of_a_damaged_repository_on_a_full_file_system(volume: Path) -> None:
    """Marks that cannot be written are worth a note; the damage is told all the same."""
    root = volume / "repository"
    back_up(new_repository(LocalStore(root)), "web", disk_of(1))
    (pack,) = (root / "packs").rglob("*/*")
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.write_bytes(data)
    with suppress(OSError):
        (volume / "ballast").write_bytes(bytes(4 * MIB))
    report = check_repository(open_repository(LocalStore(root), PASSPHRASE), read_share=1.0)
    assert report.hurt
    assert report.marked == 0
    assert any("could not be marked" in note for note in report.notes)


def test_a_read_only_file_system(volume: Path) -> None:
    root = volume / "repository"
    disk = disk_of(1)
    point = back_up(new_repository(LocalStore(root)), "web", disk)
    next((root / "index").iterdir()).unlink()
    remount(volume, "ro")
    try:
        repository = open_repository(LocalStore(root), PASSPHRASE)
        assert [found.point_id for found in repository.catalog.refresh()] == [point.point_id]
        assert read_disk(repository, point.disks[0]) == disk.content(0, disk.size)
        assert_clean(repository)
        with pytest.raises(StoreReadOnly, match="Read-only"):
            back_up(open_repository(LocalStore(root), PASSPHRASE), "web", disk)
    finally:
        remount(volume, "rw")
    back_up(open_repository(LocalStore(root), PASSPHRASE), "web", disk)
    assert_clean(open_repository(LocalStore(root), PASSPHRASE))
