"""Commands under measurement: run to the end, or kept running as a mount's daemon.

Decides how time, CPU and peak memory are taken. Knows no tool and no benchmark. Times are
seconds, memory is bytes; a command's figures include the children it waited for, except that the
peak is that of its largest process, not their sum.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
LAUNCHER = Path(__file__).with_name("launch.py")


class BenchFailure(Exception):
    """Something a benchmark needs did not work; the text says what and shows the tool's words."""


@dataclass(frozen=True)
class Command:
    """What to run, where, and with which additions to the environment."""

    argv: tuple[str, ...]
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """The command as one would type it; passphrases are throw-away and shown."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        line = " ".join([*words, shlex.join(self.argv)])
        return f"(cd {shlex.quote(str(self.cwd))} && {line})" if self.cwd else line


@dataclass(frozen=True)
class Usage:
    """What a command cost: wall-clock and CPU seconds, peak resident bytes."""

    seconds: float
    cpu_s: float
    peak_rss: int


class Runner:
    """Runs commands, printing each first when verbose."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def show(self, command: Command) -> None:
        if self._verbose:
            print(f"+ {command.shown()}", file=sys.stderr, flush=True)

    def run(self, command: Command) -> Usage:
        """Run to the end. Raises BenchFailure with the command's last words if it fails."""
        return self.output(command)[1]

    def output(self, command: Command) -> tuple[str, Usage]:
        """As run, and also the standard output as text."""
        self.show(command)
        read_end, write_end = os.pipe()
        argv = [sys.executable, "-I", "-S", str(LAUNCHER), str(write_end), *command.argv]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=command.cwd,
                env={**os.environ, **command.env},
                pass_fds=(write_end,),
                check=False,
            )
            os.close(write_end)
            with os.fdopen(read_end, "rb") as report:
                figures = report.read()
            out.seek(0)
            err.seek(0)
            printed = out.read().decode(errors="replace")
            if done.returncode != 0 or not figures:
                words = (err.read().decode(errors="replace") + printed)[-2000:]
                raise BenchFailure(f"{command.shown()}: exit {done.returncode}\n{words}")
        return printed, Usage(**json.loads(figures))

    @contextmanager
    def daemon(
        self, command: Command, probe: Callable[[], bool], stop: Command | None = None
    ) -> Iterator[Daemon]:
        """Keep a command running while the body runs; `probe` tells when it is ready.

        Ends with `stop` (SIGTERM without one) and waits for the exit. Raises BenchFailure if it
        dies or is not ready in time.
        """
        self.show(command)
        with tempfile.TemporaryFile() as words:
            started = time.monotonic()
            child = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                cwd=command.cwd,
                env={**os.environ, **command.env},
            )
            try:
                _await_ready(child, probe, started)
                yield Daemon(child.pid, time.monotonic() - started)
            except BenchFailure as failure:
                words.seek(0)
                said = words.read().decode(errors="replace")[-2000:]
                raise BenchFailure(f"{command.shown()}: {failure}\n{said}") from None
            finally:
                self._end(child, stop)

    def _end(self, child: subprocess.Popen[bytes], stop: Command | None) -> None:
        if stop is not None and child.poll() is None:
            self.show(stop)
            env = {**os.environ, **stop.env}
            subprocess.run(stop.argv, env=env, capture_output=True, check=False)
        elif child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            asked = stop.shown() if stop else "SIGTERM"
            raise BenchFailure(f"still there {STOP_TIMEOUT_S:.0f} s after {asked}") from None


@dataclass(frozen=True)
class Daemon:
    """A running mount process and how long it took until it answered."""

    pid: int
    ready_s: float

    def cpu_s(self) -> float:
        """User and system seconds of the process and its living children so far."""
        ticks = 0
        for pid in _family(self.pid):
            # The name in parentheses may hold spaces; utime is the 12th field after it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_rss(self) -> int:
        """Sum of the peaks of the process and its living children, in bytes."""
        total = 0
        for pid in _family(self.pid):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
        return total


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _family(int(child))
    return found


def _await_ready(child: subprocess.Popen[bytes], probe: Callable[[], bool], started: float) -> None:
    while not probe():
        if child.poll() is not None:
            raise BenchFailure(f"ended with {child.returncode} before it was ready")
        if time.monotonic() - started > READY_TIMEOUT_S:
            raise BenchFailure(f"not ready after {READY_TIMEOUT_S:.0f} s")
        time.sleep(0.005)
