"""Sessions that come, go, are frozen, committed, damaged or taken by others under a mount."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.store.local import LocalStore
from mounted_repository import MakePoint, MountedRepository, run
from small_repository import new_repository

MIB = 1 << 20
CONTENT = random.Random(6).randbytes(2 * MIB)


@pytest.fixture
def repository(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> MountedRepository:
    """With a point of `web`."""
    back_up_bytes("web", CONTENT)
    return checked_repository


def refused(number: int, act: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(OSError, match=re.escape(f"[Errno {number}]")):
        act(*arguments)


def live(repository: MountedRepository, *words: str) -> str:
    done = repository.backpoint("live", *words, "--live", repository.sessions)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_whole(flat: Path) -> bool:
    """Whether the session's disk can be read, as the point has it."""
    try:
        return flat.read_bytes() == CONTENT
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False


def test_sessions_come_and_go_under_a_mount(repository: MountedRepository) -> None:
    """Without a session `live/` is empty; one that is begun is there at once; one that is discarded
    is gone at once, also where a program has its disk open."""
    repository.mount_live()
    sessions = repository.place / "live"
    assert os.listdir(sessions) == []
    first = repository.start_session("web", "first")
    assert (first / "disk0-flat.vmdk").read_bytes() == CONTENT
    second = repository.start_session("web", "second")
    (second / "only here").touch()
    assert sorted(os.listdir(sessions)) == ["first", "second"]
    assert "only here" not in os.listdir(first)
    opened = os.open(first / "disk0-flat.vmdk", os.O_RDWR)
    os.pwrite(opened, b"lost", 0)
    live(repository, "discard", "first", "--yes")
    try:
        assert (os.listdir(sessions), first.exists()) == (["second"], False)
        refused(errno.ESTALE, os.pread, opened, 4, 0)
        refused(errno.ESTALE, os.pwrite, opened, b"more", 0)
    finally:
        os.close(opened)
    assert not (repository.sessions / "first").exists()
    again = repository.start_session("web", "first")
    assert (again / "disk0-flat.vmdk").read_bytes() == CONTENT


def test_a_plain_mount_has_no_live_folder(repository: MountedRepository) -> None:
    """Nor does its text speak of one; all of it is read-only for the kernel."""
    repository.start_session("web", "trial")
    repository.mount()
    assert "live" not in os.listdir(repository.place)
    assert "live/" not in (repository.place / "README.txt").read_text()
    assert f" {repository.place} ro," in Path("/proc/self/mountinfo").read_text()


def test_a_folder_that_cannot_have_sessions(repository: MountedRepository, tmp_path: Path) -> None:
    """Or has another repository's is refused before anything is mounted."""
    foreign = MountedRepository(
        new_repository(LocalStore(tmp_path / "foreign")), tmp_path / "foreign", tmp_path, tmp_path
    )
    repository.start_session("web", "trial")
    for mounter, home in ((repository, tmp_path / "source.raw"), (foreign, repository.sessions)):
        done = mounter.backpoint("mount", "--live", home, repository.place)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert str(home) in done.stderr
        assert not repository.mounted


def test_a_commit_under_a_mount(repository: MountedRepository) -> None:
    """While a program has the disk open: the point has what was written before, the session all,
    and its numbers stay."""
    flat = repository.start_session("web", "trial") / "disk0-flat.vmdk"
    repository.mount_live()
    opened = os.open(flat, os.O_RDWR)
    os.pwrite(opened, b"before", 1000)
    number = os.fstat(opened).st_ino
    committed = json.loads(live(repository, "commit", "trial", "--as", "fixed", "--json"))
    os.pwrite(opened, b"behind", 2000)
    os.close(opened)
    expected = bytearray(CONTENT)
    expected[1000:1006] = b"before"
    assert committed["vm"] == "fixed"
    wait_for((repository.newest("fixed")).exists)
    assert (repository.newest("fixed") / "disk0-flat.vmdk").read_bytes() == bytes(expected)
    expected[2000:2006] = b"behind"
    assert (flat.read_bytes(), flat.stat().st_ino) == (bytes(expected), number)
    repository.umount()
    repository.mount_live()
    assert (flat.read_bytes(), flat.stat().st_ino) == (bytes(expected), number)
    assert os.getxattr(flat.parent, b"user.backpoint.point").decode() == committed["id"]
    assert (repository.newest("web") / "disk0-flat.vmdk").read_bytes() == CONTENT


def test_a_frozen_session_is_read_only(repository: MountedRepository) -> None:
    """Also for who has had it open; until it is thawed."""
    flat = repository.start_session("web", "trial") / "disk0-flat.vmdk"
    repository.mount_live()
    opened = os.open(flat, os.O_RDWR)
    os.pwrite(opened, b"before", 0)
    live(repository, "freeze", "trial")
    assert flat.read_bytes() == b"before" + CONTENT[6:]
    refused(errno.EROFS, os.pwrite, opened, b"x", 0)
    refused(errno.EROFS, os.open, flat, os.O_RDWR)
    refused(errno.EROFS, os.truncate, flat, 0)
    refused(errno.EROFS, flat.with_name("new").touch)
    refused(errno.EROFS, flat.with_name("new").mkdir)
    refused(errno.EROFS, flat.unlink)
    refused(errno.EROFS, flat.rename, flat.with_name("other"))
    refused(errno.EROFS, flat.chmod, 0o600)
    live(repository, "freeze", "trial", "--thaw")
    os.pwrite(opened, b"behind", 0)
    os.close(opened)
    assert flat.read_bytes() == b"behind" + CONTENT[6:]


def test_a_session_that_another_process_has(repository: MountedRepository) -> None:
    """It is shown and busy, the log says why; once it is free, it can be used."""
    flat = repository.start_session("web", "trial") / "disk0-flat.vmdk"
    session = SessionHome(repository.sessions, repository.fresh()).open("trial")
    repository.mount_live()
    assert os.listdir(flat.parent.parent) == ["trial"]
    assert flat.parent.is_dir()
    refused(errno.EBUSY, os.listdir, flat.parent)
    refused(errno.EBUSY, flat.read_bytes)
    assert "trial is in use" in repository.log()
    session.close()
    wait_for(lambda: is_whole(flat))


def test_damaged_sessions_do_not_hide(repository: MountedRepository) -> None:
    """They are there, unreadable, with the reason in the log; others are not hurt."""
    for name in ("whole", "names", "record"):
        repository.start_session("web", name)
    (repository.sessions / "names/names.sqlite").write_bytes(b"garbage" * 1000)
    (repository.sessions / "record/session.json").write_bytes(b"{}")
    repository.mount_live()
    place = repository.place / "live"
    assert sorted(os.listdir(place)) == ["names", "record", "whole"]
    for name in ("names", "record"):
        refused(errno.EIO, os.listdir, place / name)
        refused(errno.EIO, (place / name / "new").touch)
    assert (place / "whole/disk0-flat.vmdk").read_bytes() == CONTENT
    for told in ("names.sqlite", "session.json"):
        assert told in repository.log()


def write_synced(file: int, data: bytes, offset: int) -> bool:
    """False where the disk is full."""
    try:
        os.pwrite(file, data, offset)
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MiB."""
    image, place = tmp_path / "small.img", tmp_path / "live"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    run("mkfs.ext4", "-q", "-m0", "-Onone,extent", image)
    run("mount", "-o", "loop", image, place)
    yield place
    run("umount", place)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_the_guests_to_know(
    repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """ENOSPC, and what was synced before is whole; with room again the session goes on."""
    back_up_bytes("large", bytes(16 * MIB))
    repository.start_session("large", "trial")
    repository.mount_live()
    flat = repository.place / "live/trial/disk0-flat.vmdk"
    opened, synced, data = os.open(flat, os.O_RDWR), 0, os.urandom(64 << 10)
    filler = flat.with_name("filler")
    filler.write_bytes(bytes(range(256)) * 4096)
    while write_synced(opened, data, synced):
        synced += len(data)
    assert MIB < synced < 8 * MIB
    assert flat.read_bytes()[:synced] == (data * (synced // len(data)))
    refused(errno.ENOSPC, flat.with_name("another").write_bytes, bytes(4 * MIB))
    assert os.statvfs(repository.place).f_bavail * 4096 < MIB
    os.close(opened)
    for _ in range(2):
        assert flat.read_bytes()[:synced] == (data * (synced // len(data)))
        repository.umount()
        repository.mount_live()
    filler.unlink()
    wait_for(lambda: os.statvfs(repository.sessions).f_bavail * 1024 > MIB // 2)
    with flat.open("r+b") as file:
        file.seek(12 * MIB)
        file.write(data)
        os.fsync(file)
    assert flat.read_bytes()[12 * MIB :][: len(data)] == data
    repository.umount()


def test_two_mounts_share_no_session(repository: MountedRepository, tmp_path: Path) -> None:
    """The first that touches it has it."""
    flat = repository.start_session("web", "trial") / "disk0-flat.vmdk"
    repository.mount_live()
    flat.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    done = repository.backpoint("mount", "--live", repository.sessions, other)
    assert done.returncode == 0, done.stderr
    try:
        refused(errno.EBUSY, os.listdir, other / "live/trial")
        repository.umount()
        wait_for(lambda: is_whole(other / "live/trial/disk0-flat.vmdk"))
    finally:
        subprocess.run(["umount", other], check=True)
