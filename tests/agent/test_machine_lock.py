"""One agent at a time on a VM: locks among threads and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backpoint_agent.errors import Busy, Stopped
from backpoint_agent.machine import Identity
from backpoint_agent.machine_lock import Holder, machine_lock
from backpoint_agent.stopping import Stop
from backpoint_repo.errors import UsageError

WEB = Identity("vcenter-uuid", "instance-uuid")
HOLDS = """
import sys
from pathlib import Path
from backpoint_agent.machine import Identity
from backpoint_agent.machine_lock import machine_lock
from backpoint_agent.stopping import Stop
web = Identity("vcenter-uuid", "instance-uuid")
with machine_lock(Path(sys.argv[1]), web, "web01", "backup", limit_s=0, stop=Stop()):
    print("held", flush=True)
    sys.stdin.read()
"""


def take(locks: Path, limit_s: float = 0.0, stop: Stop | None = None) -> None:
    """Take the lock and give it back."""
    with machine_lock(locks, WEB, "web01", "reap", limit_s=limit_s, stop=stop or Stop()):
        pass


def holding(locks: Path) -> subprocess.Popen[str]:
    """Another process that has the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(locks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named(tmp_path: Path) -> None:
    """Busy says which VM, which process on which host, what for, and how long was waited."""
    process = holding(tmp_path)
    with pytest.raises(Busy) as refused:
        take(tmp_path)
    for word in ("web01", f"process {process.pid}", os.uname().nodename, "backup", "waited 0 s"):
        assert word in str(refused.value)
    process.communicate()
    take(tmp_path)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """Nothing has to be cleared up after a kill."""
    process = holding(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    take(tmp_path)


def test_a_second_one_waits_for_the_first(tmp_path: Path) -> None:
    """Within the limit the lock is had as soon as it is free; who waits is told who has it."""
    process = holding(tmp_path)
    told: list[Holder | None] = []

    def free(holder: Holder | None) -> None:
        told.append(holder)
        process.communicate()

    with machine_lock(tmp_path, WEB, "web01", "reap", limit_s=60, stop=Stop(), on_wait=free):
        pass
    assert [holder.pid for holder in told if holder] == [process.pid]


def test_waiting_ends_with_a_stop(tmp_path: Path) -> None:
    """A stop is heard while waiting."""
    stop = Stop()
    waits = threading.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            with machine_lock(
                tmp_path,
                WEB,
                "web01",
                "backup",
                limit_s=600,
                stop=stop,
                on_wait=lambda _: waits.set(),
            ):
                pass
        except Stopped as error:
            ended.append(error)

    with machine_lock(tmp_path, WEB, "web01", "reap", limit_s=0, stop=Stop()):
        thread = threading.Thread(target=wait)
        thread.start()
        assert waits.wait(60)
        stop.request("the test says so")
        thread.join(60)
    assert len(ended) == 1


def test_vms_have_locks_of_their_own(tmp_path: Path) -> None:
    """Another VM, and the same uuid in another vCenter, are not waited for."""
    others = (Identity("vcenter-uuid", "other"), Identity("other", "instance-uuid"))
    with machine_lock(tmp_path, WEB, "web01", "backup", limit_s=0, stop=Stop()):
        for other in others:
            with machine_lock(tmp_path, other, "web02", "backup", limit_s=0, stop=Stop()):
                pass


@pytest.mark.parametrize("note", ["", "garbage", "[]", '{"pid": 1e999}', "[" * 4000])
def test_what_stands_in_a_lock_file_is_only_a_word(tmp_path: Path, note: str) -> None:
    """Whatever a lock file holds, the lock itself decides."""
    with machine_lock(tmp_path, WEB, "web01", "backup", limit_s=0, stop=Stop()):
        (file,) = tmp_path.iterdir()
        file.write_text(note)
        with pytest.raises(Busy, match="an unknown process"):
            take(tmp_path)
    take(tmp_path)


def test_names_of_vcenter_make_no_paths(tmp_path: Path) -> None:
    """A vCenter that gives a path for a uuid locks a file of the folder."""
    evil = Identity("../../etc", "/etc/passwd\0")
    with machine_lock(tmp_path, evil, "web01", "backup", limit_s=0, stop=Stop()):
        (file,) = tmp_path.iterdir()
    assert file.suffix == ".lock"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Without its folder nothing is locked, and the message has the path."""
    with pytest.raises(UsageError, match="missing"):
        take(tmp_path / "missing")
