"""Commands of `backpoint`, each in a process of its own that may kill itself at a given moment.

A server that has imported everything forks for each command, which is quicker than a new Python.
python mortal_commands.py: requests on stdin, answers on stdout, a line of JSON each. A moment is a
number: every step that leaves a trace outside, and every read, is counted as it is reached.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONG_AGO_S = 3600.0
"""The mortal's ledger says that it lived so long ago: nobody waits for what it may just have asked
for."""


@dataclass(frozen=True)
class End:
    """code: exit code, negative for a signal. moment: what had just been reached."""

    code: int
    out: str
    err: str
    moment: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Mortals:
    """The server's other end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *words: str, die_at: int | str | None = None) -> End:
        """`backpoint` with these words. die_at: the moment's number, the first is 1; or the first
        whose name begins so."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([words, die_at]), file=self._process.stdin, flush=True)
        return End(*json.loads(self._process.stdout.readline()))


@contextmanager
def mortals(variables: dict[str, str]) -> Iterator[Mortals]:
    """variables: of the commands' environment, beside our own."""
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | variables | {"PYTHONPATH": str(Path(__file__).parent)},
    ) as process:
        yield Mortals(process)
        assert process.stdin is not None
        process.stdin.close()


def _serve() -> None:
    from backpoint_agent.commands import agent, backup, opening, reap
    from backpoint_agent.jobs import job_run
    from backpoint_agent.live import boot_plan, known_sessions
    from backpoint_repo import process_tuning

    # Imported here once, for all children.
    assert all((agent, backup, opening, reap, job_run, process_tuning, boot_plan, known_sessions))
    for line in sys.stdin:
        words, die_at = json.loads(line)
        with ExitStack() as open_files:
            files = [open_files.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            code = _in_a_child([file.fileno() for file in files], words, die_at)
            texts = []
            for file in files:
                file.seek(0)
                texts.append(file.read().decode())
        print(json.dumps([code, *texts]), flush=True)


def _in_a_child(files: list[int], words: list[str], die_at: int | str | None) -> int:
    """files: what become its stdout and stderr, and where the moment of its death is written."""
    from backpoint_repo import cli

    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(files[0], 1)
    os.dup2(files[1], 2)
    if die_at is not None:
        _make_mortal(die_at, files[2])
    code = cli.main(words)
    sys.stdout.flush()
    os._exit(code)


def _make_mortal(die_at: int | str, file: int) -> None:
    from backpoint_agent import ledger
    from backpoint_agent.ledger_file import LedgerFile
    from backpoint_agent.transport.bandwidth import Paced
    from backpoint_agent.vsphere.vcenter import VCenter
    from backpoint_repo.backup_session import BackupSession

    death = _Death(die_at, file)
    death.around(LedgerFile, "append", lambda _, entry: type(entry).__name__)
    death.around(BackupSession, "publish", lambda *_, **__: "publishing")
    death.around(VCenter, "call", lambda _, what, ask, *, repeat=True: "" if repeat else what)
    death.around(Paced, "read_into", lambda *_: "a read")
    born = functools.partial(ledger.Ledger, clock=lambda: time.time() - LONG_AGO_S)
    ledger.Ledger = born  # type: ignore[assignment,misc]


class _Death:
    """Counts moments, and ends the process at one of them."""

    def __init__(self, at: int | str, file: int) -> None:
        self._at = at
        self._file = file
        self._lock = threading.Lock()
        self._count = 0

    def around(self, owner: Any, name: str, told: Callable[..., str]) -> None:
        """Moments before and after a method. told: what it does, out of its arguments; "" for what
        is none."""
        act = getattr(owner, name)

        @functools.wraps(act)
        def with_moments(*words: Any, **named: Any) -> Any:
            what = told(*words, **named)
            self._reach(f"before {what}", what)
            done = act(*words, **named)
            self._reach(f"after {what}", what)
            return done

        setattr(owner, name, with_moments)

    def _reach(self, moment: str, what: str) -> None:
        if not what:
            return
        with self._lock:
            self._count += 1
            if self._count == self._at or moment.startswith(str(self._at)):
                os.pwrite(self._file, moment.encode(), 0)
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _serve()
