"""What programs do to files of a live session, through a real mount."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpoint_repo.source.detect import open_image
from mounted_repository import MountedRepository
from small_repository import back_up

MIB = 1 << 20
CONTENT = os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB + 777)
_NOREPLACE, _EXCHANGE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_WRITER = """
import os, sys
path, first = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_RDWR)
for number in range(first, 512, 2):
    os.pwrite(fd, bytes([number % 251]) * 4096, number * 4096)
    assert os.pread(fd, 4096, number * 4096) == bytes([number % 251]) * 4096
os.fsync(fd)
"""


@pytest.fixture(scope="module")
def mounted(
    shared_repository: MountedRepository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedRepository]:
    """With a point of `web` and a session of it, `trial`; the point is as it was at the end."""
    image = tmp_path_factory.mktemp("source") / "disk.raw"
    image.write_bytes(CONTENT)
    source = open_image(image)
    back_up(shared_repository.repository, "web", source)
    source.close()
    shared_repository.start_session("web", "trial")
    shared_repository.mount_live()
    yield shared_repository
    assert (shared_repository.newest("web") / "disk0-flat.vmdk").read_bytes() == CONTENT


@pytest.fixture
def trial(mounted: MountedRepository) -> Path:
    return mounted.place / "live/trial"


@pytest.fixture
def folder(trial: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own in the session."""
    made = trial / str(request.node.name)
    made.mkdir()
    return made


def refused(number: int, act: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(OSError, match=re.escape(f"[Errno {number}]")):
        act(*arguments)


def renamed(old: Path, new: Path, flags: int) -> int:
    """0, or what renameat2 was refused with."""
    done = _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
    return 0 if done == 0 else ctypes.get_errno()


def test_a_session_begins_as_the_points_disk(trial: Path) -> None:
    """Same bytes, same descriptor; holes are holes."""
    assert sorted(os.listdir(trial))[:2] == ["disk0-flat.vmdk", "disk0.vmdk"]
    assert (trial / "disk0-flat.vmdk").stat().st_size == len(CONTENT)
    assert b"disk0-flat.vmdk" in (trial / "disk0.vmdk").read_bytes()
    assert os.getxattr(trial, b"user.backpoint.vm") == b"web"


def test_files_are_made_renamed_and_removed(folder: Path) -> None:
    """And everything about them is told."""
    file, other = folder / "a", folder / "b"
    file.write_bytes(b"one")
    with file.open("ab") as opened:
        opened.write(b" two")
    assert file.read_bytes() == b"one two"
    file.chmod(0o640)
    os.chown(file, 12, 34)
    os.utime(file, ns=(5, 1_234_567_890_123_456_789))
    found = file.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 12, 34)
    assert (found.st_size, found.st_mtime_ns) == (7, 1_234_567_890_123_456_789)
    file.rename(other)
    assert (os.listdir(folder), other.stat().st_ino) == (["b"], found.st_ino)
    inner = folder / "inner"
    inner.mkdir(0o710)
    assert stat.S_IMODE(inner.stat().st_mode) == 0o710
    other.rename(inner / "c")
    refused(errno.ENOTEMPTY, inner.rmdir)
    (folder / "link").symlink_to("inner/c")
    assert (os.readlink(folder / "link"), (folder / "link").read_bytes()) == ("inner/c", b"one two")
    (inner / "c").unlink()
    (folder / "link").unlink()
    inner.rmdir()
    assert os.listdir(folder) == []


def test_what_cannot_be_is_refused_as_everywhere(folder: Path, trial: Path) -> None:
    """With the errno that POSIX knows."""
    (folder / "file").write_bytes(b"x")
    (folder / "full").mkdir()
    (folder / "full/file").touch()
    refused(errno.EEXIST, os.open, folder / "file", os.O_CREAT | os.O_EXCL)
    refused(errno.EEXIST, (folder / "full").mkdir)
    refused(errno.ENOENT, (folder / "nothing").unlink)
    refused(errno.EISDIR, (folder / "full").unlink)
    refused(errno.ENOTDIR, (folder / "file").rmdir)
    refused(errno.ENOTDIR, (folder / "file/below").touch)
    refused(errno.ENOTEMPTY, (folder / "full").rmdir)
    refused(errno.EINVAL, (folder / "full").rename, folder / "full/below")
    refused(errno.ENAMETOOLONG, (folder / ("n" * 256)).touch)
    (folder / ("n" * 255)).touch()
    refused(errno.EPERM, os.link, folder / "file", folder / "hard")
    refused(errno.EPERM, os.mkfifo, folder / "pipe")
    refused(errno.ENOTSUP, os.setxattr, folder / "file", b"user.x", b"y")
    os.mknod(folder / "node", stat.S_IFREG | 0o600)
    assert (folder / "node").read_bytes() == b""
    assert renamed(folder / "file", folder / "node", _NOREPLACE) == errno.EEXIST
    assert renamed(folder / "file", folder / "free", _NOREPLACE) == 0
    assert renamed(folder / "free", folder / "node", _EXCHANGE) == errno.EINVAL
    name = os.fsencode(folder) + b"/\xff\xfe bytes"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    assert os.path.basename(name) in os.listdir(os.fsencode(folder))


def test_all_else_is_read_only(mounted: MountedRepository, folder: Path) -> None:
    """Points, `live/` itself, and the way from one to the other."""
    place, point = mounted.place, mounted.newest("web").resolve()
    flat, mine = point / "disk0-flat.vmdk", folder / "mine"
    mine.touch()
    for where in (place, place / "vms", point, place / "live"):
        refused(errno.EROFS, (where / "new").touch)
        refused(errno.EROFS, (where / "new").mkdir)
        refused(errno.EROFS, (where / "new").symlink_to, "x")
        refused(errno.EROFS, mine.rename, where / "new")
        assert not os.access(where, os.W_OK)
    refused(errno.EROFS, os.open, flat, os.O_RDWR)
    refused(errno.EROFS, os.open, flat, os.O_RDONLY | os.O_TRUNC)
    refused(errno.EROFS, os.truncate, flat, 0)
    refused(errno.EROFS, flat.chmod, 0o777)
    refused(errno.EROFS, os.utime, flat)
    refused(errno.EROFS, flat.unlink)
    refused(errno.EROFS, flat.rename, folder / "disk")
    refused(errno.EROFS, os.setxattr, flat, b"user.x", b"y")
    refused(errno.EROFS, (place / "live/trial").rmdir)
    refused(errno.EROFS, (place / "live/trial").rename, place / "live/other")
    refused(errno.EROFS, os.rmdir, point)
    assert os.access(mine, os.W_OK)
    assert "live/<session>/" in (place / "README.txt").read_text()


def test_an_unlinked_file_stays_until_it_is_closed(
    folder: Path, mounted: MountedRepository
) -> None:
    """Read, written, and no name; then its bytes are gone from the session's disk too."""
    files = mounted.sessions / "trial/files"
    before = set(os.listdir(files))
    opened = os.open(folder / "gone", os.O_CREAT | os.O_RDWR)
    os.write(opened, b"still ")
    os.unlink(folder / "gone")
    again = os.dup(opened)
    os.write(opened, b"here")
    assert os.pread(again, 99, 0) == b"still here"
    assert (os.fstat(again).st_nlink, os.listdir(folder)) == (0, [])
    assert set(os.listdir(files)) - before
    os.close(opened)
    assert os.pread(again, 99, 0) == b"still here"
    os.close(again)
    deadline = time.monotonic() + 10  # a close does not wait for the mount's answer
    while set(os.listdir(files)) - before:
        assert time.monotonic() < deadline


def test_what_a_rename_replaces_stays_open_too(folder: Path) -> None:
    """As a browser's download that is finished while the old one is read."""
    (folder / "old").write_bytes(b"old")
    (folder / "new").write_bytes(b"new")
    with (folder / "old").open("rb") as opened:
        (folder / "new").rename(folder / "old")
        assert opened.read() == b"old"
    assert (folder / "old").read_bytes() == b"new"
    assert os.listdir(folder) == ["old"]


def test_the_disk_is_cut_and_grown(mounted: MountedRepository) -> None:
    """What was cut off never comes back: zeros, whatever the point has there."""
    flat = mounted.start_session("web", "resized") / "disk0-flat.vmdk"
    os.truncate(flat, 5000)
    assert flat.read_bytes() == CONTENT[:5000]
    os.truncate(flat, len(CONTENT) + 10_000)
    assert flat.read_bytes() == CONTENT[:5000] + bytes(len(CONTENT) + 5000)
    with flat.open("r+b") as opened:
        opened.seek(flat.stat().st_size + 4096)
        opened.write(b"end")
    assert flat.stat().st_size == len(CONTENT) + 10_000 + 4096 + 3
    assert flat.read_bytes()[-5000:] == bytes(5000 - 3) + b"end"
    with flat.open("wb"):
        assert flat.stat().st_size == 0


def test_every_way_of_writing(trial: Path) -> None:
    """Buffered, mapped, direct, synchronous: one sees what the other wrote."""
    flat, expected = trial / "disk0-flat.vmdk", bytearray(CONTENT)
    direct = mmap.mmap(-1, MIB)
    direct.write(b"d" * MIB)
    for flags, offset, data in (
        (os.O_SYNC, 3, b"sync"),
        (os.O_DSYNC, MIB + 1, b"data sync"),
        (os.O_DIRECT, MIB, memoryview(direct)),
        (0, MIB - 2, b"plain" * 1000),
    ):
        opened = os.open(flat, os.O_RDWR | flags)
        assert os.pwrite(opened, data, offset) == len(data)
        os.close(opened)
        expected[offset : offset + len(data)] = data
        assert flat.read_bytes() == bytes(expected)
    opened = os.open(flat, os.O_RDWR)
    with mmap.mmap(opened, len(CONTENT)) as mapped:
        mapped[2 * MIB - 5 : 2 * MIB + 5] = b"mapped you"
        assert os.pread(opened, 10, 2 * MIB - 5) == b"mapped you"
        mapped.flush()
    os.close(opened)
    expected[2 * MIB - 5 : 2 * MIB + 5] = b"mapped you"
    read = os.open(flat, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 4 * MIB)
    assert os.preadv(read, [buffer], 0) == 4 * MIB
    os.close(read)
    assert buffer[:] == bytes(expected[: 4 * MIB])


def test_appenders_side_by_side_lose_nothing(folder: Path) -> None:
    """Each line is there, whole."""
    log = folder / "log"
    script = (
        "import sys\nfor n in range(200): open(sys.argv[1], 'a').write(sys.argv[2] * 40 + chr(10))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, log, letter]) for letter in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    lines = log.read_text().splitlines()
    assert sorted(lines) == ["a" * 40] * 200 + ["b" * 40] * 200


def test_two_processes_write_one_disk(mounted: MountedRepository) -> None:
    """Every other block each, at the same time."""
    flat = mounted.start_session("web", "shared") / "disk0-flat.vmdk"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, flat, first]) for first in ("0", "1")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = flat.read_bytes()
    assert found[: 2 * MIB] == b"".join(bytes([n % 251]) * 4096 for n in range(512))
    assert found[2 * MIB :] == CONTENT[2 * MIB :]
    assert (mounted.place / "live/trial/disk0-flat.vmdk").read_bytes()[-777:] == CONTENT[-777:]


def test_a_database_works(folder: Path) -> None:
    """SQLite with a write-ahead log needs locks and memory that is mapped shared."""
    base = folder / "data.sqlite"
    with sqlite3.connect(base) as one, sqlite3.connect(base) as two:
        assert one.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
        one.execute("CREATE TABLE t (n INTEGER)")
        one.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
        one.commit()
        assert two.execute("SELECT sum(n) FROM t").fetchone() == (499_500,)
    one.close()
    two.close()
    with sqlite3.connect(base) as three:
        assert three.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    three.close()


def test_a_folder_that_is_emptied_while_it_is_listed(folder: Path) -> None:
    """None is passed over: positions do not shift where files go."""
    for number in range(400):
        (folder / f"{number:100}").touch()  # 50 KiB of names: two calls of getdents
    removed = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            os.unlink(entry.path)
            removed += 1
    assert (removed, os.listdir(folder)) == (400, [])


def test_the_mount_tells_the_room_there_is(mounted: MountedRepository) -> None:
    """That of the disk with the sessions."""
    here, there = os.statvfs(mounted.place / "live/trial"), os.statvfs(mounted.sessions)
    assert here.f_blocks * here.f_frsize == pytest.approx(there.f_blocks * there.f_frsize)
    assert 0 < here.f_bavail * here.f_frsize <= there.f_blocks * there.f_frsize


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 300_000), st.integers(1, 70_000)),
            st.tuples(st.just("resize"), st.integers(0, 300_000), st.just(0)),
            st.tuples(st.just("sync"), st.just(0), st.just(0)),
        ),
        max_size=12,
    )
)
def test_a_file_is_an_array_of_bytes(trial: Path, steps: list[tuple[str, int, int]]) -> None:
    """Whatever is written and cut, in any order."""
    path, expected = trial / "any.bin", bytearray()
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        for number, (what, offset, length) in enumerate(steps):
            if what == "write":
                data = bytes([number + 1]) * length
                os.pwrite(opened, data, offset)
                expected.extend(bytes(max(0, offset + length - len(expected))))
                expected[offset : offset + length] = data
            elif what == "resize":
                os.ftruncate(opened, offset)
                expected.extend(bytes(max(0, offset - len(expected))))
                del expected[offset:]
            else:
                os.fsync(opened)
            assert os.fstat(opened).st_size == len(expected)
        assert path.read_bytes() == expected
    finally:
        os.close(opened)
