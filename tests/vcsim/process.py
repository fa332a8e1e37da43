"""The simulator's process: built when its sources changed, asked over a pipe, ended with us.

The pipe is its standard input and output, so that it can be asked while its network is down, and so
that it sees the end of its input when this process dies, however it dies.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "vcsim"
END_TIMEOUT_S = 20


@functools.cache
def binary() -> Path:
    """The simulator, built if its sources have changed."""
    subprocess.run([TOOLS / "build"], check=True)
    return TOOLS / "vcsim"


class SimulatorError(Exception):
    """The simulator refused a request of the test, did not start, or panicked."""


class Process:
    """One running simulator; requests may come from several threads."""

    def __init__(self, arguments: Sequence[str], folder: Path, password: str) -> None:
        """Start it; its datastores and its log (`vcsim.log`) are in `folder`."""
        self.log = folder / "vcsim.log"
        self._lock = threading.Lock()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary(), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "TMPDIR": str(folder), "VCSIM_PASSWORD": password},
                # Ctrl-C at the terminal is for those who still need a vCenter to clear up.
                process_group=0,
            )
        try:
            self.ready: dict[str, Any] = self._read()
        except SimulatorError:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its answer; SimulatorError if it is refused."""
        with self._lock:
            pipe = _open(self._process.stdin)
            try:
                pipe.write(json.dumps(request).encode() + b"\n")
                pipe.flush()
            except BrokenPipeError as error:
                raise SimulatorError(f"the simulator is gone: {self._last_words()}") from error
            return self._read()

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes it hang and SIGCONT go on."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Close its input and wait; whatever it attached is detached by itself."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGCONT)
        _open(self._process.stdin).close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _open(self._process.stdout).close()

    def panics(self) -> str:
        """The first panic in the log with its stack, or nothing."""
        text = self.log.read_text(errors="replace")
        starts = [text.find(mark) for mark in ("panic: ", "panic serving", "DATA RACE")]
        found = [at for at in starts if at >= 0]
        return text[min(found) :][:4000] if found else ""

    def _read(self) -> dict[str, Any]:
        line = _open(self._process.stdout).readline()
        if not line:
            raise SimulatorError(f"the simulator is gone: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SimulatorError(answer["error"])
        return answer

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
