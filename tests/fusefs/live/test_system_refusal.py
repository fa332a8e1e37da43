"""A folder of sessions that the system refuses something of: full, read-only, taken away."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from backpoint_fusefs.live.errors import NoSuchSession, SessionStorageFailed
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_fusefs.live.system_refusal import refusal
from backpoint_repo.errors import BackpointError, UsageError
from backpoint_repo.store.memory import MemoryStore
from command_line import CommandLine, Said, make_repository, opened
from session_scene import disk_bytes, make_point, make_scene, named, read_whole
from small_repository import assert_clean, new_repository

DISK = b"disk0-flat.vmdk"


@dataclass(frozen=True)
class SmallPlace:
    """A file system of 2 MiB with a session `web`, and commands of the repository's owner."""

    line: CommandLine
    folder: Path

    def live(self, *words: str, code: int = 0) -> Said:
        """`backpoint live`, without a traceback in any case."""
        return self.line.run("live", *words, "--live", self.folder, code=code)

    def fill(self) -> None:
        """Until not a byte more fits."""
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallPlace]:
    owner, _ = make_repository(tmp_path, tmp_path / "repo")
    point = make_point(opened(owner), [disk_bytes(1)])
    place = tmp_path / "small"
    place.mkdir()
    options = "size=2m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "backpoint-test", place], check=True)
    try:
        home = SessionHome(place, opened(owner))
        home.start(point, "web")
        session = home.open("web")
        session.file(named(session, DISK).number).write(0, b"written")
        session.close()
        yield SmallPlace(owner, place)
    finally:
        subprocess.run(["umount", place], check=True)
    assert_clean(opened(owner))


def test_a_full_disk_is_told_and_loses_nothing(small: SmallPlace) -> None:
    """Each command that writes there says so in a line, with the remedy; those that do not go on.
    A discard needs no room, and with room all goes on."""
    small.fill()
    for words in (["start", "web01", "--name", "more"], ["freeze", "web"], ["commit", "web"]):
        said = small.live(*words, code=4)
        assert "No space left on device; make room there (`live discard`" in said.error
    assert "web" in small.live("list").out
    small.empty()
    small.live("freeze", "web")
    assert "point web01@" in small.live("commit", "web").out
    small.fill()
    assert "freed" in small.live("discard", "web", "--yes").out
    small.empty()
    small.live("start", "web01", "--name", "again")


def test_a_folder_that_became_read_only(small: SmallPlace) -> None:
    """Every command says what to do; nothing is changed."""
    subprocess.run(["mount", "-o", "remount,ro", small.folder], check=True)
    for words in (["start", "web01"], ["freeze", "web"], ["commit", "web"], ["list"]):
        said = small.live(*words, code=2)
        assert "Read-only file system; mount its file system writable" in said.error
    subprocess.run(["mount", "-o", "remount,rw", small.folder], check=True)
    session = SessionHome(small.folder, opened(small.line)).open("web")
    assert read_whole(session, named(session, DISK)).startswith(b"written")
    session.close()


def test_a_folder_that_is_taken_away(tmp_path: Path) -> None:
    """Under a process that has it open, with or without its sessions."""
    scene = make_scene(new_repository(MemoryStore()), tmp_path / "live")
    scene.home.start(scene.point, "web")
    shutil.rmtree(scene.home.folder / "web")
    assert scene.home.list() == []
    for work in (scene.home.open, scene.home.discard):
        with pytest.raises(NoSuchSession):
            work("web")
    shutil.rmtree(scene.home.folder)
    with pytest.raises(UsageError, match="cannot be listed: No such file or directory; somebody"):
        scene.home.list()
    with pytest.raises(UsageError, match="no session can be made"):
        scene.home.start(scene.point, "other")
    with pytest.raises(NoSuchSession):
        scene.home.open("web")


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, SessionStorageFailed, "make room"),
        (errno.EDQUOT, SessionStorageFailed, "make room"),
        (errno.EIO, SessionStorageFailed, "kernel's log"),
        (errno.EACCES, UsageError, "as the user whose folder it is"),
        (errno.EROFS, UsageError, "writable"),
        (errno.EXDEV, SessionStorageFailed, ""),
    ],
)
def test_each_refusal_has_its_remedy(number: int, kind: type[BackpointError], remedy: str) -> None:
    """And the exit code of whose affair it is."""
    error = refusal(OSError(number, os.strerror(number)), "the session web")
    assert type(error) is kind
    assert str(error).startswith(f"the session web: {os.strerror(number)}")
    assert remedy in str(error)
