"""Space is given back beside a mount: what is open stays, what was moved is found, what is closed
goes.

The mount is a process of its own. The collector runs in this one, so that its waiting is spent on
what makes a mount look for trash at once: a file that is opened and closed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectReport, CollectTerms
from backpoint_repo.index import stored_packs
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import MOUNT
from backpoint_repo.lease_book import read_leases
from backpoint_repo.phase_progress import Silent
from backpoint_repo.point import Point
from backpoint_repo.retention.prune import apply_prune, plan_prune
from backpoint_repo.retention.rules import Rules
from backpoint_repo.source.detect import open_image
from guest_trees.disks import make_image, mounted_image
from mounted_repository import MakePoint, MountedRepository
from small_repository import NOON, back_up, read_disk

MIB = 1 << 20
_LIMIT_S = 60.0
_POLL_S = 0.1


@pytest.fixture
def repository(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> MountedRepository:
    """With a VM that nothing happens to: its file is opened to be noticed."""
    back_up_bytes("bell", b"x" * 10_000)
    return checked_repository


def test_an_open_file_of_a_removed_point_is_read_in_full_and_goes_once_closed(
    repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    old, new = _content(1), _content(2)
    before = _packs(repository)
    back_up_bytes("web", old)
    own = _packs(repository) - before
    repository.mount()
    flat = _flat(repository, "web")
    with flat.open("rb", buffering=0) as file:
        _wait_for(lambda: bool(_pins(repository)))
        back_up_bytes("web", new)
        _prune(repository)
        report = _collect(repository)
        assert [pinned.by.startswith("mount") for pinned in report.pinned] == [True]
        assert own <= _packs(repository)
        _drop_caches()
        assert _read(file.fileno(), MIB) == old
    _wait_for(lambda: not _pins(repository))
    report = _collect(repository)
    assert report.pinned == ()
    assert not own & _packs(repository)
    assert _flat(repository, "web").read_bytes() == new


def test_files_are_read_on_and_opened_after_their_packs_were_moved(
    repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """The first file has been read in part, the second only opened, the third comes afterwards."""
    old = _content(3)
    new = _content(4)[: MIB // 2] + old[MIB // 2 :]
    before = _packs(repository)
    back_up_bytes("web", old)
    moved = _packs(repository) - before
    back_up_bytes("web", new)
    repository.mount()
    flat = _flat(repository, "web")
    with flat.open("rb", buffering=0) as first, flat.open("rb", buffering=0) as second:
        assert os.pread(first.fileno(), 4096, MIB - 4096) == new[-4096:]
        _prune(repository)
        report = _collect(repository)
        assert report.copied > 0
        assert not moved & _packs(repository)
        _drop_caches()
        assert _read(first.fileno(), MIB) == new
        _drop_caches()
        assert _read(second.fileno(), MIB) == new
    _drop_caches()
    assert flat.read_bytes() == new


def test_a_live_session_keeps_its_point_until_it_is_discarded(
    repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """Its disk is read, written and committed after everything else was pruned and collected."""
    old = _content(5)
    back_up_bytes("web", old)
    (origin,) = _points(repository, "web")
    session = repository.start_session("web", "trial")
    repository.mount_live()
    with (session / "disk0-flat.vmdk").open("r+b", buffering=0) as disk:
        os.pwrite(disk.fileno(), b"written live", 4096)
        back_up_bytes("web", _content(6))
        _prune(repository)
        _collect(repository)
        assert origin in _points(repository, "web")
        _drop_caches()
        expected = old[:4096] + b"written live" + old[4108:]
        assert _read(disk.fileno(), MIB) == expected
        _backpoint(repository, "live", "commit", "trial", "--live", repository.sessions)
    (committed,) = (point for point in _points(repository, "web") if point.branch)
    assert read_disk(repository.fresh(), committed.disks[0]) == expected
    words = ("live", "discard", "trial", "--yes", "--live", repository.sessions)
    _backpoint(repository, *words)
    _prune(repository)
    assert origin not in _points(repository, "web")
    _wait_for(lambda: not _pins(repository))
    assert _collect(repository).freed_packs > 0
    assert read_disk(repository.fresh(), committed.disks[0]) == expected


def test_an_open_guest_file_of_a_removed_point_is_read_in_full(
    repository: MountedRepository, back_up_bytes: MakePoint, tmp_path: Path
) -> None:
    """Through the guest's file system, whose tables are read from the removed point as well.

    The collector may begin before the pin is in the mount's lease: it copies out what is pinned by
    then.
    """
    image, content = tmp_path / "guest.raw", _content(7)
    make_image(image, "ext4", 16 * MIB)
    with mounted_image(image, "ext4") as root:
        (root / "deep").mkdir()
        (root / "deep" / "file").write_bytes(content)
    source = open_image(image)
    back_up(repository.fresh(), "web", source, time=NOON)
    source.close()
    repository.mount()
    guest = repository.newest("web").resolve() / "guest/disk0/deep/file"
    with guest.open("rb", buffering=0) as file:
        back_up_bytes("web", b"new" * 10_000)
        _prune(repository)
        report = _collect(repository)
        assert [pinned.by.startswith("mount") for pinned in report.pinned] == [True]
        _drop_caches()
        assert _read(file.fileno(), MIB) == content
    _wait_for(lambda: not _pins(repository))
    assert _collect(repository).freed_packs > 0
    assert _flat(repository, "web").read_bytes() == b"new" * 10_000


def _content(seed: int) -> bytes:
    return random.Random(seed).randbytes(MIB)


def _flat(repository: MountedRepository, vm: str) -> Path:
    """The newest point's disk, by a path that stays with this point."""
    return repository.newest(vm).resolve() / "disk0-flat.vmdk"


def _points(repository: MountedRepository, vm: str) -> list[Point]:
    fresh = repository.fresh()
    found = fresh.catalog.refresh()
    return [fresh.point(point.point_id) for point in found if point.vm == vm]


def _packs(repository: MountedRepository) -> set[PackRef]:
    return set(stored_packs(repository.fresh().sealed))


def _read(fd: int, size: int) -> bytes:
    return b"".join(os.pread(fd, 64 << 10, at) for at in range(0, size, 64 << 10))


def _drop_caches() -> None:
    """What is read after this is asked of the mount."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _backpoint(repository: MountedRepository, *words: str | Path) -> None:
    done = repository.backpoint(*words)
    assert done.returncode == 0, done.stderr


def _prune(repository: MountedRepository) -> None:
    """Only the newest point of each VM stays, and what is held."""
    fresh = repository.fresh()
    plan = plan_prune(fresh, {vm: [Rules(last=1)] for vm in ("bell", "web")})
    apply_prune(fresh, plan, lambda _: None)


def _collect(repository: MountedRepository) -> CollectReport:
    """All that may go is gone."""

    def pause(_: float) -> None:
        _flat(repository, "bell").read_bytes()
        # Not the three seconds: the mount renews its lease within one.
        time.sleep(_POLL_S)

    terms = CollectTerms(max_repack=None, wait_s=1e6, dry_run=False)
    report = collect(repository.fresh(), terms, Silent(), pause)
    assert (report.waiting, report.damaged, report.stopped) == ((), (), ())
    return report


def _pins(repository: MountedRepository) -> tuple[bytes, ...]:
    """Points that the mount's lease protects."""
    leases = read_leases(repository.fresh().sealed)
    return tuple(pin for lease in leases if lease.purpose == MOUNT for pin in lease.pins)


def _wait_for(is_so: Callable[[], bool]) -> None:
    """Ask again until it is so; a minute."""
    end = time.monotonic() + _LIMIT_S
    while not is_so():
        assert time.monotonic() < end, "waited a minute"
        time.sleep(_POLL_S)
