"""Mounts that are served by a child of the process that needs them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_fusefs.background import BackgroundFailed
from backpoint_fusefs.mounting import MountPlan
from backpoint_fusefs.served_mount import ServedMount
from backpoint_repo.errors import RepositoryError
from mounted_repository import MakePoint, MountedRepository

MIB = 1 << 20
_DISK = os.urandom(MIB)
_PARENT = """
import sys
from pathlib import Path
from backpoint_fusefs.mounting import MountPlan
from backpoint_fusefs.served_mount import ServedMount
from backpoint_repo.repository import open_repository
from backpoint_repo.store.local import LocalStore
from small_repository import PASSPHRASE
repository = open_repository(LocalStore(Path(sys.argv[1])), PASSPHRASE)
served = ServedMount(MountPlan(repository, Path(sys.argv[2]), 16 << 20), 2)
print(served.pid, flush=True)
sys.stdin.read()
"""


def _serve(made: MountedRepository) -> ServedMount:
    log = os.open(made.root.parent / "served.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return ServedMount(MountPlan(made.fresh(), made.place, 16 * MIB), log, "served.log")
    finally:
        os.close(log)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_answers_when_it_is_made_and_is_gone_when_it_is_left(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """The mount lives exactly as long as the context manager, and its child is reaped."""
    back_up_bytes("web", _DISK)
    with _serve(checked_repository) as served:
        assert (checked_repository.newest("web") / "disk0-flat.vmdk").read_bytes() == _DISK
        assert not select.select([served.pidfd], [], [], 0)[0]
        pid = served.pid
    assert not checked_repository.mounted
    assert not Path(f"/proc/{pid}").exists()
    served.end()


def test_a_file_that_is_open_does_not_hinder_its_end(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """A busy mount is taken away lazily and its process ends all the same."""
    back_up_bytes("web", _DISK)
    with _serve(checked_repository) as served:
        file = os.open(checked_repository.newest("web") / "disk0-flat.vmdk", os.O_RDONLY)
        served.end()
        assert not checked_repository.mounted
        assert not Path(f"/proc/{served.pid}").exists()
        with contextlib.suppress(OSError):  # its file system is gone
            os.close(file)


def test_a_killed_child_is_told_and_cleared(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """The pidfd tells of the death, and the dead mount is taken away for a new one."""
    back_up_bytes("web", _DISK)
    with _serve(checked_repository) as served:
        os.kill(served.pid, signal.SIGKILL)
        assert select.select([served.pidfd], [], [], 20)[0]
    assert not checked_repository.mounted
    with _serve(checked_repository):
        assert checked_repository.newest("web").exists()


def test_it_ends_with_its_parent_however_that_dies(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """After SIGKILL of the parent the mount goes away by itself."""
    back_up_bytes("web", _DISK)
    places = (str(checked_repository.root), str(checked_repository.place))
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        pidfd = os.pidfd_open(child)
        parent.kill()
        parent.wait(20)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    _wait_for(lambda: not checked_repository.mounted)


def test_what_mounting_raises_is_raised(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """The child's failure is the parent's: message and exit code, and nothing stays."""
    back_up_bytes("web", _DISK)
    unchecked_repository.place.rmdir()
    with pytest.raises((BackgroundFailed, RepositoryError)) as raised:
        _serve(unchecked_repository)
    assert raised.value.exit_code in (2, 4)
    assert not unchecked_repository.mounted
