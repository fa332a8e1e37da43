"""Repositories to mount: unmounted when a test ends, then checked unless the test damages them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.source.detect import open_image
from backpoint_repo.store.local import LocalStore
from mounted_repository import MakePoint, MountedRepository
from small_repository import NOON, back_up, new_repository


@pytest.fixture
def unchecked_repository(tmp_path: Path) -> Iterator[MountedRepository]:
    """An empty repository that the test may damage; unmounted when the test ends."""
    place, state = tmp_path / "mount", tmp_path / "state"
    place.mkdir()
    root = tmp_path / "repo"
    made = MountedRepository(new_repository(LocalStore(root)), root, place, state)
    yield made
    if made.mounted:
        made.umount("--lazy")


@pytest.fixture
def checked_repository(unchecked_repository: MountedRepository) -> Iterator[MountedRepository]:
    """The same, whole when the test ends."""
    yield unchecked_repository
    report = check_repository(unchecked_repository.fresh(), read_share=1.0)
    assert report.clean, report


@pytest.fixture
def back_up_bytes(unchecked_repository: MountedRepository, tmp_path: Path) -> MakePoint:
    """Make a point of a VM with one disk of these bytes, an hour after the one before."""

    hours = itertools.count()

    def make(vm: str, content: bytes) -> None:
        path = tmp_path / "source.raw"
        path.write_bytes(content)
        source = open_image(path)
        try:
            time = NOON + 3600.0 * next(hours)
            back_up(unchecked_repository.fresh(), vm, source, time=time)
        finally:
            source.close()

    return make


@pytest.fixture
def open_place() -> Iterator[Path]:
    """An empty folder that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="backpoint-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        place = Path(name) / "mount"
        place.mkdir()
        yield place
