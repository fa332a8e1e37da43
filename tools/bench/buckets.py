"""Object servers for the benchmarks, and the line to them: latency and bandwidth as ordered.

Decides which servers there are and how a client reaches them. Knows no tool.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from object_server import ADMIN, object_server
from paced_proxy import PacedProxy, Terms, paced_proxy

BUCKET: Final = "bench"
LINE: Final = Terms(delay_s=0.05, bytes_per_s=200e6)
MEMORY, SEAWEED = "in memory", "SeaweedFS"
_PROCESS: Final = Path(__file__).with_name("bucket_process.py")
_TESTS: Final = Path(__file__).resolve().parents[2] / "tests"
IN_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True)
class Server:
    """endpoint: without the line; order: what only the one in memory understands."""

    name: str
    endpoint: str
    order: Callable[[str, Any], Any] = field(default=lambda _verb, _what: None)


@dataclass(frozen=True)
class Place:
    """A server and the line to it."""

    server: Server
    line: PacedProxy

    def environment(self, near: bool = False) -> dict[str, str]:
        """How a command reaches it. near: not over the line, for what is not measured."""
        return {
            "AWS_ENDPOINT": self.server.endpoint if near else self.line.endpoint,
            "AWS_ACCESS_KEY_ID": ADMIN[0],
            "AWS_SECRET_ACCESS_KEY": ADMIN[1],
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }


@contextmanager
def place(name: str, room: int) -> Iterator[Place]:
    """A server of that name with `room` bytes, and the line."""
    with (
        _SERVERS[name](room) as server,
        paced_proxy(server.endpoint, LINE) as line,
    ):
        yield Place(server, line)


@contextmanager
def _in_memory(room: int) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, _PROCESS, str(room)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
    )
    assert process.stdin
    assert process.stdout
    orders, answers = process.stdin, process.stdout

    def order(verb: str, what: Any) -> Any:
        orders.write(json.dumps([verb, what]) + "\n")
        orders.flush()
        return json.loads(answers.readline())

    with process:
        try:
            yield Server(MEMORY, f"http://127.0.0.1:{int(answers.readline())}", order)
        finally:
            process.kill()


@contextmanager
def _seaweed(_room: int) -> Iterator[Server]:
    # On this machine's disk it stores a third of what it does in memory.
    with (
        tempfile.TemporaryDirectory(dir=IN_MEMORY, prefix="bench-weed-") as folder,
        object_server(Path(folder)) as running,
    ):
        yield Server(SEAWEED, running.endpoint)


_SERVERS: Final[dict[str, Callable[[int], AbstractContextManager[Server]]]] = {
    MEMORY: _in_memory,
    SEAWEED: _seaweed,
}
