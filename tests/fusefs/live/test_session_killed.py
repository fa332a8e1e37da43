"""A process that dies before any one step of a session's life: nothing synced is lost, nothing
half made is shown, and no point is held by nobody or let go of too early."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.overlay_disk import CutDisk
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_cut import CutFolder
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.local import LocalStore
from mortal_sessions import Mortals, mortals
from session_scene import (
    SIZE,
    LiveScene,
    content_of,
    held_points,
    make_point,
    make_scene,
    named,
)
from small_repository import PASSPHRASE, assert_clean, new_repository

STEPS_MAX = 200
WORDS = b"written by the dying"


@pytest.fixture(scope="module")
def dying() -> Iterator[Mortals]:
    with mortals() as found:
        yield found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[LiveScene]:
    """Its repository in `repository`, its sessions in `live`; in memory, because a killed process
    does not lose what it has not synced, and hundreds of deaths would wait for the disk."""
    place = tmp_path / "memory"
    place.mkdir()
    options = "size=64m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "backpoint-test", place], check=True)
    try:
        yield make_scene(new_repository(LocalStore(place / "repository")), place / "live")
    finally:
        # Lazy: a store keeps what it has read open as long as it lives.
        subprocess.run(["umount", "--lazy", place], check=True)


def deaths(dying: Mortals, work: str, scene: LiveScene) -> Iterator[LiveScene]:
    """The scene after a death before each step, as processes that come later find it."""
    place = scene.home.folder.parent
    kept = place / "kept"
    kept.mkdir()
    for name in ("repository", "live"):
        (place / name).rename(kept / name)
    for step in range(STEPS_MAX):
        for name in ("repository", "live"):
            shutil.rmtree(place / name, ignore_errors=True)
            shutil.copytree(kept / name, place / name, symlinks=True)
        died = dying.die_in(work, step, place / "repository", place / "live")
        repository = open_repository(LocalStore(place / "repository"), PASSPHRASE)
        home = SessionHome(place / "live", repository)
        yield LiveScene(repository, home, scene.point, scene.disks)
        assert_clean(repository)
        if not died:
            assert step > 3, "too few steps to be true"
            return
    raise AssertionError("it never ends")


def cut_disk(session: Path, repository: Repository, disk: int, number: int) -> bytes:
    record = json.loads((session / "session.json").read_bytes())
    point = repository.point(bytes.fromhex(record["point_id"]))
    base = repository.open_disk(point.disks[disk], ChunkCache(1 << 20))
    source = CutDisk(session / "disks" / str(disk), base, record["floor"], number)
    content = bytearray(source.size)
    source.read_into(0, memoryview(content))
    source.close()
    return bytes(content)


def assert_cut_holds(session: Session, repository: Repository, number: int) -> None:
    """What a commit would store of a session that nobody has written to since."""
    content = content_of(session)
    cut = CutFolder(session.folder, number)
    for disk in cut.disks:
        held = cut_disk(session.folder, repository, disk.number, number)
        assert held == content[disk.path.encode()]
    for file in cut.files:
        assert cut.read(file) == content[file.path.encode()]


def test_start(dying: Mortals, scene: LiveScene) -> None:
    """Whole or not there; the point is held then and only then; the name is free again."""
    point = scene.point.point_id.hex()
    outcomes = set()
    for after in deaths(dying, "start", scene):
        home, repository = after.home, after.repository
        states = home.list()
        outcomes.add(len(states))
        assert held_points(repository) == [point] * len(states)
        assert {name for name in os.listdir(home.folder) if name.startswith(".")} == set()
        if not states:
            states = [home.start(scene.point, "web")]
        assert [(state.name, state.problem) for state in states] == [("web", "")]
        session = home.open("web")
        assert content_of(session)[b"disk1-flat.vmdk"] == scene.disks[1]
        assert len(content_of(session)) == 6
        session.close()
        home.discard("web")
        assert held_points(repository) == []
    assert outcomes == {0, 1}


def test_cut(dying: Mortals, scene: LiveScene) -> None:
    """What was synced is there. A cut that is there is right, and so is the next one."""
    session = scene.started()
    session.file(named(session, b"disk0-flat.vmdk").number).write(SIZE // 2, b"long before")
    session.close()
    outcomes = set()
    for after in deaths(dying, "cut", scene):
        home, repository = after.home, after.repository
        session = home.open("web")
        assert all(
            session.file(named(session, name).number).read(4, len(WORDS)) in (WORDS, before)
            for name, before in (
                (b"disk0-flat.vmdk", scene.disks[0][4 : 4 + len(WORDS)]),
                (b"disk1-flat.vmdk", scene.disks[1][4 : 4 + len(WORDS)]),
                (b"vmware.log", b""),
            )
        )
        if session.record.cut:
            assert session.file(named(session, b"vmware.log").number).read(4, 99) == WORDS
        try:
            assert_cut_holds(session, repository, 1)
            outcomes.add("whole")
        except SessionDamaged:
            outcomes.add(f"none, number {session.record.cut}")
        number = session.cut()
        assert number > session.record.floor
        assert_cut_holds(session, repository, number)
        disk = session.file(named(session, b"disk1-flat.vmdk").number)
        disk.write(0, b"after the cut")
        assert not cut_disk(session.folder, repository, 1, number).startswith(b"after")
        session.close()
    assert outcomes == {"none, number 0", "none, number 1", "whole"}


def test_rebase(dying: Mortals, scene: LiveScene) -> None:
    """The session reads the same whichever point it stands on, and stands on one."""
    session = scene.started()
    for name in (b"disk0-flat.vmdk", b"disk1-flat.vmdk"):
        session.file(named(session, name).number).write(9, b"in the cut")
    assert session.cut() == 1
    disks = [cut_disk(session.folder, scene.repository, disk, 1) for disk in (0, 1)]
    session.file(named(session, b"disk0-flat.vmdk").number).write(15, b"after the cut")
    expected = content_of(session)
    session.close()
    point = make_point(scene.repository, disks).point_id.hex()
    outcomes = set()
    for after in deaths(dying, "rebase", scene):
        home, repository = after.home, after.repository
        session = home.open("web")
        outcomes.add(session.record.point_id)
        assert content_of(session) == expected
        session.rebase(point, 1)
        assert content_of(session) == expected
        assert os.listdir(session.folder / "cuts") == []
        assert_cut_holds(session, repository, session.cut())
        session.close()
    assert outcomes == {scene.point.point_id.hex(), point}


def test_discard(dying: Mortals, scene: LiveScene) -> None:
    """There as it was and held, or gone with its hold as soon as somebody looks."""
    session = scene.started()
    session.file(named(session, b"disk0-flat.vmdk").number).write(0, b"x")
    session.cut()
    expected = content_of(session)
    session.close()
    outcomes = set()
    for after in deaths(dying, "discard", scene):
        home, repository = after.home, after.repository
        states = home.list()
        outcomes.add(len(states))
        assert held_points(repository) == [scene.point.point_id.hex()] * len(states)
        assert {name for name in os.listdir(home.folder) if name.startswith(".")} == set()
        if states:
            session = home.open("web")
            assert content_of(session) == expected
            session.close()
    assert outcomes == {0, 1}


def test_forget(dying: Mortals, scene: LiveScene) -> None:
    """A name that is gone stays gone; its bytes go at the latest when the session is opened."""
    session = scene.started()
    log = named(session, b"vmware.log").number
    session.file(log).write(0, b"log")
    session.close()
    for after in deaths(dying, "forget", scene):
        session = after.home.open("web")
        there = content_of(session)
        assert (session.folder / "files" / str(log)).exists() == (b"vmware.log" in there)
        assert (session.folder / "disks" / "1").exists() <= (b"disk1-flat.vmdk" in there)
        assert b"disk0-flat.vmdk" in there
        assert session.names.unlinked() == []
        session.close()
