"""Live sessions whose mount is killed or ended under those who write: what was synced is there."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from backpoint_fusefs.live.session_home import SessionHome
from file_handles import handle_of, open_handle
from mounted_repository import MakePoint, MountedRepository, run

MIB = 1 << 20
BLOCK = 4096
CONTENT = random.Random(5).randbytes(8 * MIB)
_WRITER = """
import os, random, sys
fd = os.open(sys.argv[1], os.O_RDWR)
blocks = random.Random(int(sys.argv[2]))
for number in range(1_000_000):
    block = blocks.randrange(1024, 2048)
    os.pwrite(fd, number.to_bytes(8, "big") * 512, block * 4096)
    os.fsync(fd)
    print(number, flush=True)
"""
"""Writes blocks of the disk's second half, each full of its number, and tells which are synced."""
_FIO = (
    *("fio", "--name=verify", "--ioengine=psync", "--rw=randwrite", "--bs=4k", "--size=4M"),
    *("--verify=crc32c", "--randseed=7", "--end_fsync=1", "--output-format=terse"),
    "--verify_state_save=0",  # a file in the working folder
)


@pytest.fixture
def repository(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> MountedRepository:
    """With a point of `web`, and a session of it, mounted."""
    back_up_bytes("web", CONTENT)
    checked_repository.start_session("web", "trial")
    checked_repository.mount_live()
    return checked_repository


@pytest.fixture
def flat(repository: MountedRepository) -> Path:
    return repository.place / "live/trial/disk0-flat.vmdk"


def kill(repository: MountedRepository) -> None:
    """The mount's process, and the dead mount away."""
    process = os.pidfd_open(repository.pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        await_end(process)
    finally:
        os.close(process)
    repository.umount()


def await_end(process: int) -> None:
    assert select.select([process], [], [], 30)[0]


def read_until(lines: IO[str], number: int) -> None:
    """Until a writer says that this one is synced."""
    while int(lines.readline()) < number:
        pass


def assert_written(flat: Path, seed: int, synced: int, started: int) -> None:
    """Blocks hold their last number up to `synced`, or a later one that was `started`."""
    blocks, expected = random.Random(seed), dict[int, set[int]]()
    for number in range(started + 1):
        block = blocks.randrange(1024, 2048)
        expected[block] = {number} | (expected.get(block, set()) if number > synced else set())
    found = flat.read_bytes()
    for block in range(1024, 2048):
        data = found[block * BLOCK : (block + 1) * BLOCK]
        if (
            min(expected.get(block, {synced + 1})) > synced
            and data == CONTENT[block * BLOCK : (block + 1) * BLOCK]
        ):
            continue
        number = int.from_bytes(data[:8], "big")
        assert data == data[:8] * 512, f"block {block} is torn"
        assert number in expected[block], f"block {block} is of {number}"


def test_what_was_synced_outlives_kill_9(repository: MountedRepository, flat: Path) -> None:
    """What fio wrote verifies; what was synced while the mount was killed is there, nothing torn,
    however it was synced; names are there too; and the session goes on."""
    run(*_FIO, f"--filename={flat}", "--do_verify=0")
    for number, flags in enumerate((os.O_SYNC, os.O_DSYNC, 0)):
        other = os.open(flat.with_name("other"), os.O_RDWR | os.O_CREAT | flags)
        os.ftruncate(other, 3 * BLOCK)
        os.pwrite(other, b"synced", number * BLOCK)
        if not flags:
            with mmap.mmap(other, 3 * BLOCK) as mapped:
                mapped[3 * BLOCK - 6 :] = b"mapped"
                mapped.flush()
        os.close(other)
    (flat.parent / "folder").mkdir()
    flat.with_name("folder").joinpath("kept.log").write_bytes(b"")
    flat.with_name("disk0.vmdk").rename(flat.with_name("renamed.vmdk"))
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, flat, "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        read_until(writer.stdout, 300)
        kill(repository)
        rest = writer.stdout.read().split()
        assert writer.wait(30) != 0
    synced = int(rest[-1]) if rest else 300
    repository.mount_live()
    assert_written(flat, 3, synced, synced + 1)
    run(*_FIO, f"--filename={flat}", "--verify_only")
    synced_at = [flat.with_name("other").read_bytes()[at * BLOCK :][:6] for at in range(3)]
    assert synced_at == [b"synced"] * 3
    assert flat.with_name("other").read_bytes()[-6:] == b"mapped"
    names = ["disk0-flat.vmdk", "folder", "other", "renamed.vmdk"]
    assert sorted(os.listdir(flat.parent)) == names
    assert os.listdir(flat.parent / "folder") == ["kept.log"]
    run(*_FIO, f"--filename={flat}", "--do_verify=1")
    assert (repository.newest("web") / "disk0-flat.vmdk").read_bytes() == CONTENT


@pytest.mark.parametrize("how", ["SIGTERM", "umount"])
def test_a_mount_that_ends_syncs_its_sessions(
    repository: MountedRepository, flat: Path, how: str
) -> None:
    """Also what no program synced, also while it is open; then the session is anybody's."""
    opened = os.open(flat, os.O_RDWR)
    os.pwrite(opened, b"never synced", 12_345)
    flat.with_name("log").write_bytes(b"nor this")
    process = os.pidfd_open(repository.pid)
    if how == "SIGTERM":
        signal.pidfd_send_signal(process, signal.SIGTERM)
        await_end(process)
        with contextlib.suppress(OSError):  # nobody is there to be told
            os.close(opened)
    else:
        os.close(opened)
        repository.umount()
    os.close(process)
    session = SessionHome(repository.sessions, repository.fresh()).open("trial")
    node = session.names.child(1, b"disk0-flat.vmdk")
    assert node is not None
    assert bytes(session.file(node.number).read(12_345, 12)) == b"never synced"
    session.close()
    repository.mount_live()
    assert flat.with_name("log").read_bytes() == b"nor this"


def test_handles_outlive_the_mount(repository: MountedRepository, flat: Path) -> None:
    """By handle alone, in a new mount that was never asked for a name; folders know the way up.
    What is gone is stale."""
    inner = flat.parent / "a/b"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"content")
    (inner / "gone").touch()
    paths = [flat.parent, flat, inner, inner / "file"]
    handles, numbers = [handle_of(path) for path in paths], [path.stat().st_ino for path in paths]
    gone = handle_of(inner / "gone")
    (inner / "gone").unlink()
    for _ in range(2):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        opened = [open_handle(repository.place, handle) for handle in reversed(handles)]
        file, folder, disk, session = opened
        assert os.pread(file, 99, 0) == b"content"
        assert os.readlink(f"/proc/self/fd/{folder}") == str(inner)
        assert os.pread(disk, MIB, 0) == CONTENT[:MIB]
        assert "disk0-flat.vmdk" in os.listdir(session)
        for descriptor in opened:
            os.close(descriptor)
        with pytest.raises(OSError, match="Stale"):
            open_handle(repository.place, gone)
        repository.umount()
        repository.mount_live()
    assert [path.stat().st_ino for path in paths] == numbers
    writing = open_handle(repository.place, handles[1], os.O_RDWR)
    os.pwrite(writing, b"by handle", 0)
    os.close(writing)
    assert flat.read_bytes()[:9] == b"by handle"
