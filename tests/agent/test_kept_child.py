"""A child that serves a disk ends with us and with a stop, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_agent.errors import Stopped
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.vddk import VddkImage
from frozen_vm import gone
from some_machine import some_disk

LIMIT_S = 20


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_stop_ends_a_read_that_waits() -> None:
    """A server that does not answer is ended: the reader is told that it was stopped."""
    stop = Stop()
    command = (
        "nbdkit", "--foreground", "--exit-with-parent", "--unix", "{socket}",
        "--filter=delay", "memory", "1M", "rdelay=60",
    )  # fmt: skip
    image = VddkImage(some_disk(), command, {}, "secret", stop)
    threading.Timer(0.2, stop.request, ("somebody asked",)).start()
    with pytest.raises(Stopped, match="somebody asked"):
        image.read_into(0, memoryview(bytearray(4096)))
    image.close()
    assert gone(image.pid)


ORPHAN = """
import sys, threading
from pathlib import Path
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.kept_child import kept_by_a_thread
from backpoint_repo.source.nbd_child import NbdChild
command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", sys.argv[1], "null", "1M"]
children = []
def begin():
    start = kept_by_a_thread(Stop())
    children.append(NbdChild("disk", sys.argv[1], command, program="nbdkit", start=start))
thread = threading.Thread(target=begin)
thread.start()
thread.join()
print(children[0].pid, flush=True)
sys.stdin.read()
"""


def test_the_child_outlives_the_thread_and_not_the_process(tmp_path: Path) -> None:
    """The thread that opened a disk may end; when the agent is killed nothing is left running."""
    address = tmp_path / "socket"
    agent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(address)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    assert agent.stdin is not None
    child = int(agent.stdout.readline())
    until(address.exists, "nbdkit does not listen")
    assert not gone(child)
    agent.kill()
    agent.wait()
    until(lambda: gone(child), "nbdkit outlives the agent")
    agent.stdin.close()
    agent.stdout.close()
