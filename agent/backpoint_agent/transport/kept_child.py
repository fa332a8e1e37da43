"""A child process that ends with us, and with a stop.

Decides who watches it: a thread of its own, that started it and lives as long as it does. For
nbdkit's `--exit-with-parent` ties a child to the *thread* that started it, so that a worker
thread's end would take the disk away under the others; and a read that waits for a storage for
minutes ends only with whoever serves it. Knows nothing of what the child does.
"""

from __future__ import annotations

import os
import queue
import select
import subprocess
import threading
from collections.abc import Sequence
from typing import IO, Final

from backpoint_agent.stopping import Stop
from backpoint_repo.source.nbd_child import Start, start_child

_LOOK_MS: Final = 250

Outcome = subprocess.Popen[bytes] | OSError


def kept_by_a_thread(stop: Stop) -> Start:
    """A `Start` for `NbdChild` whose child is asked to end as soon as a stop is requested."""

    def start(command: Sequence[str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        started: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        keeper = threading.Thread(
            target=_keep, args=(command, stderr, stop, started), name="child", daemon=True
        )
        keeper.start()
        outcome = started.get()
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    return start


def _keep(
    command: Sequence[str], stderr: IO[bytes], stop: Stop, started: queue.SimpleQueue[Outcome]
) -> None:
    try:
        child = start_child(command, stderr)
    except OSError as error:
        started.put(error)
        return
    try:
        exited = os.pidfd_open(child.pid)
    except OSError as error:
        child.kill()
        child.wait()
        started.put(error)
        return
    started.put(child)
    try:
        gone = select.poll()
        gone.register(exited, select.POLLIN)
        while not gone.poll(_LOOK_MS):
            if stop.reason is not None:
                child.terminate()
                break
        # Its parent thread must outlive it. Whoever closes it kills it if it does not listen.
        gone.poll()
    finally:
        os.close(exited)
