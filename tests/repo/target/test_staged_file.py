"""Names are given at the end, durably, and never taken from another file."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.errors import TargetError, UsageError
from backpoint_repo.target.staged_file import StagedFile


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 filesystem of its own."""
    backing, place = tmp_path / "ext4", tmp_path / "mounted"
    backing.write_bytes(bytes(16 << 20))
    subprocess.run(["mkfs.ext4", "-q", backing], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", backing, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def exhaust_links(path: Path) -> None:
    """Give a file as many names as ext4 allows, so that it is as if there were no hard links."""
    folder = path.with_name("names")
    folder.mkdir()
    with pytest.raises(OSError, match="Too many links"):
        _link_for_ever(path, folder)


def _link_for_ever(path: Path, folder: Path) -> None:
    for number in itertools.count():
        os.link(path, folder / str(number))


def test_filesystem_that_makes_no_hard_link(mounted: Path) -> None:
    staged = StagedFile(mounted / "disk")
    staged.path.write_bytes(b"whole")
    exhaust_links(staged.path)
    _written(staged.final)
    with pytest.raises(UsageError, match="exists"):
        staged.publish()
    assert staged.final.read_bytes() == b"mine"
    staged.final.unlink()
    staged.publish()
    staged.discard()
    assert staged.final.read_bytes() == b"whole"
    names = sorted(file.name for file in mounted.iterdir())
    assert names == ["disk", "lost+found", "names"]


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    staged = StagedFile(tmp_path / "disk")
    assert staged.path.stat().st_mode & 0o777 == 0o600
    staged.publish()
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o600


def test_folder_that_cannot_be_written(mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    with pytest.raises(TargetError, match=r"cannot create .*/disk': Read-only file system"):
        StagedFile(mounted / "disk")


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        StagedFile(_written(tmp_path / "file") / "disk")


def _written(path: Path) -> Path:
    path.write_bytes(b"mine")
    return path
