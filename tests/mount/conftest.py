"""Repositories to mount: unmounted when a test ends, then checked unless the test damages them."""

from __future__ import annotations

import contextlib
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


@contextlib.contextmanager
def _repository_in(folder: Path) -> Iterator[MountedRepository]:
    place, state, root = folder / "mount", folder / "state", folder / "repo"
    place.mkdir()
    made = MountedRepository(new_repository(LocalStore(root)), root, place, state)
    try:
        yield made
    finally:
        if made.mounted:
            made.umount("--lazy")


def _assert_whole(repository: MountedRepository) -> None:
    report = check_repository(repository.fresh(), read_share=1.0)
    assert report.clean, report


@pytest.fixture
def unchecked_repository(tmp_path: Path) -> Iterator[MountedRepository]:
    """An empty repository that the test may damage; unmounted when the test ends."""
    with _repository_in(tmp_path) as made:
        yield made


@pytest.fixture
def checked_repository(unchecked_repository: MountedRepository) -> Iterator[MountedRepository]:
    """The same, whole when the test ends."""
    yield unchecked_repository
    _assert_whole(unchecked_repository)


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedRepository]:
    """One for all tests of a module that only look at what is mounted; whole at the end."""
    with _repository_in(tmp_path_factory.mktemp("shared")) as made:
        yield made
        _assert_whole(made)


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
