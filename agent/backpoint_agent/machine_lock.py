"""One agent at a time works on a VM: a lock file for each, among all processes of this machine.

Decides how long a second one waits and what it is told. Refuses to know agents with another state
folder: theirs is found out by their snapshots, in the run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_agent.errors import Busy
from backpoint_agent.machine import Identity
from backpoint_agent.stopping import Stop
from backpoint_repo.errors import UsageError

LOOK_EVERY_S: Final = 0.5
_NOTE_MAX: Final = 4096


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as it says itself. since: seconds since 1970."""

    pid: int
    host: str
    purpose: str
    since: float

    def __str__(self) -> str:
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        except (OverflowError, ValueError, OSError):
            since = "an unknown time"
        return f"process {self.pid} on {self.host} ({self.purpose}, since {since})"


@contextlib.contextmanager
def machine_lock(
    locks: Path,
    identity: Identity,
    vm_name: str,
    purpose: str,
    *,
    limit_s: float,
    stop: Stop,
    on_wait: Callable[[Holder | None], None] | None = None,
) -> Iterator[None]:
    """Hold the VM's lock in the folder `locks` (`StateFolder.locks`).

    purpose: "backup", "restore" or "reap", for those who have to wait. limit_s: 0 does not wait.
    on_wait: called once, before the first wait. Raises Busy naming who has it, Stopped, UsageError.
    """
    path = locks / (hashlib.sha256(str(identity).encode()).hexdigest()[:32] + ".lock")
    descriptor = _open(path)
    try:
        _acquire(descriptor, vm_name, limit_s, stop, on_wait)
        _note(path, descriptor, purpose)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    # Lock files stay: one that is deleted while another waits for it would be two locks.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise UsageError(f"{path}: the VM cannot be locked: {error.strerror}") from error


def _acquire(
    descriptor: int,
    vm_name: str,
    limit_s: float,
    stop: Stop,
    on_wait: Callable[[Holder | None], None] | None,
) -> None:
    deadline = time.monotonic() + limit_s
    told = False
    while not _try(descriptor):
        holder = _read_holder(descriptor)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Busy(
                f"{vm_name}: another agent works on it: {holder or 'an unknown process'}; "
                f"waited {limit_s:g} s (machine_lock_s)"
            )
        if on_wait and not told:
            on_wait(holder)
            told = True
        stop.wait(min(LOOK_EVERY_S, left_s))


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(path: Path, descriptor: int, purpose: str) -> None:
    record = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "purpose": purpose,
        "since": time.time(),
    }
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode(), 0)
    except OSError as error:
        raise UsageError(f"{path}: the VM cannot be locked: {error.strerror}") from error


def _read_holder(descriptor: int) -> Holder | None:
    # Only a word for people: the holder may be writing it now, or have died before.
    try:
        record = json.loads(os.pread(descriptor, _NOTE_MAX, 0))
        return Holder(
            int(record["pid"]),
            str(record["host"]),
            str(record["purpose"]),
            float(record["since"]),
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
