"""Commands of `backpoint`, each in a process of its own, several at once, that can be signalled.

A server that has imported everything forks for each command, which is quicker than a new Python
where few cores have to do. python thrash_server.py: requests on stdin, answers on stdout, a line of
JSON each. Knows no repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn


class Child:
    """A command that was started. Its outputs go to files out and err."""

    def __init__(self, pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self.out = out
        self.err = err
        self.code: int | None = None
        self._ended = threading.Event()
        self._handle = -1
        with contextlib.suppress(ProcessLookupError):
            self._handle = os.pidfd_open(pid)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in that time."""
        return self._ended.wait(timeout_s)

    def send(self, number: signal.Signals) -> None:
        """A signal; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._handle >= 0:
                signal.pidfd_send_signal(self._handle, number)

    def end(self, code: int | None) -> None:
        """It has ended; None: nobody knows how."""
        self.code = code
        self._ended.set()

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


class CommandServer:
    """The server's other end. Thread-safe. outputs: a folder for what commands print."""

    def __init__(self, outputs: Path, environment: Mapping[str, str]) -> None:
        outputs.mkdir()
        self._outputs = outputs
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            cwd=outputs.parent,
        )
        self._starting = threading.Lock()
        self._started = threading.Event()
        self._count = 0
        self._next: Child | None = None
        self._children: dict[int, Child] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def start(self, words: tuple[str, ...]) -> Child:
        """`backpoint` with these words."""
        assert self._process.stdin is not None
        with self._starting:
            self._count += 1
            out, err = (self._outputs / f"{self._count}.{end}" for end in ("out", "err"))
            # Here: the child may be killed before it has done anything.
            out.touch()
            err.touch()
            self._started.clear()
            request = json.dumps([words, str(out), str(err)])
            print(request, file=self._process.stdin, flush=True)
            self._started.wait(60)
            assert self._next is not None, "the server of commands has ended"
            child, self._next = self._next, None
            child.out, child.err = out, err
            return child

    def close(self) -> None:
        """Ends when its last child has ended."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._thread.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            pid, code = json.loads(line)
            if code is None:
                self._next = self._children[pid] = Child(pid, Path(), Path())
                self._started.set()
            else:
                self._children.pop(pid).end(code)
        for child in self._children.values():
            child.end(None)


def _serve() -> None:
    from backpoint_fusefs.commands import live, mount
    from backpoint_repo import backup_session, check
    from backpoint_repo.cli import find_commands
    from backpoint_repo.collecting import collect
    from backpoint_repo.parity import upkeep

    # Imported here once, for all children.
    assert all((live, mount, backup_session, check, collect, upkeep))
    for name in ("backup", "prune", "collect", "hold", "restore", "scrub", "heal", "leases"):
        find_commands()[name].load()
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    requests, children = b"", 0
    stays = True
    while stays or children:
        ready, _, _ = select.select([read, *([0] if stays else [])], [], [])
        if 0 in ready:
            some = os.read(0, 1 << 16)
            stays = bool(some)
            *lines, requests = (requests + some).split(b"\n")
            for line in lines:
                _answer(_fork(*json.loads(line)), None)
                children += 1
        if read in ready:
            os.read(read, 1 << 16)
            children -= _reap()


def _reap() -> int:
    """Children that have ended."""
    count = 0
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _answer(ended[0], os.waitstatus_to_exitcode(ended[1]))
            count += 1
    return count


def _answer(pid: int, code: int | None) -> None:
    os.write(1, f"{json.dumps([pid, code])}\n".encode())


def _fork(words: list[str], out: str, err: str) -> int:
    return os.fork() or _run(words, out, err)


def _run(words: list[str], out: str, err: str) -> NoReturn:
    from backpoint_repo import cli

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for path, fd in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), fd)
    try:
        code = cli.main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        # As an interpreter would show it.
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
