"""A proxy between a client and an object server: latency, bandwidth, and faults to order.

It is a process of its own (`proxy_process.py`), so that neither side's threads share an interpreter
with it. Clients sign requests for the proxy's address, which goes on to the server as it is. Knows
what can be asked of it; what a client makes of a fault is the test's business.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

Kind = Literal[
    "refuse",  # no connection is accepted until `calm()`, and those that exist are reset; at once,
    # where no method, key or number is given, else when the first request comes that fits
    "reset-request",  # reset when half of the request's body has gone to the server
    "reset-answer",  # reset when half of the answer's body has gone to the client
    "lose-answer",  # the server does its work; the client gets a reset
    "cut-answer",  # the right length in the head, half of the body, then the end
    "shorten-answer",  # half of the body, and a head that says so
    "stall",  # `stall_s` seconds before anything happens
    "internal-error",
    "slow-down",
    "access-denied",
    "bad-signature",
    "wrong-region",
    "expired-token",
    "clock-skew",
    "no-such-key",
    "no-such-bucket",
    "login-page",  # 200 and HTML, as a hotel's network answers
    "bad-gateway",  # 502 and HTML, as a load balancer answers
]
_PROCESS: Final = Path(__file__).with_name("proxy_process.py")


@dataclass(frozen=True)
class Terms:
    """delay_s: seconds added to every request. bytes_per_s: of all connections together, each
    way; None: as fast as it goes."""

    delay_s: float = 0.0
    bytes_per_s: float | None = None


@dataclass(frozen=True)
class Harm:
    """What is to happen to which requests.

    method: GET, PUT, HEAD, DELETE, or LIST, which is a GET to S3; None: any. key: a pattern that is
    searched for in the path and query. first: the how many-th request that fits is the first one
    harmed. times: so many are; None: all from then on.
    """

    kind: Kind
    method: str | None = None
    key: str = ""
    first: int = 1
    times: int | None = 1
    stall_s: float = 0.0


@dataclass(frozen=True)
class Counts:
    """Since the start or `clear()`. methods: requests by method, LIST apart from GET."""

    methods: dict[str, int]
    most_in_flight: int
    harmed: int
    bytes_up: int
    bytes_down: int

    @property
    def requests(self) -> int:
        return sum(self.methods.values())


class PacedProxy:
    """A running one. Safe for threads."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self.endpoint: Final = f"http://127.0.0.1:{self._ask('port', None)}"

    def counts(self) -> Counts:
        return Counts(**self._ask("counts", None))

    def clear(self) -> None:
        """Count from here on."""
        self._ask("clear", None)

    def harm(self, harm: Harm) -> None:
        """One fault more."""
        self._ask("harm", asdict(harm))

    def calm(self) -> None:
        """No faults any more; connections are accepted again."""
        self._ask("calm", None)

    def _ask(self, verb: str, what: Any) -> Any:
        process = self._process
        assert process.stdin
        assert process.stdout
        with self._lock:
            process.stdin.write(json.dumps([verb, what]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        assert answer, "the proxy has died"
        return json.loads(answer)


@contextmanager
def paced_proxy(target: str, terms: Terms | None = None) -> Iterator[PacedProxy]:
    """A proxy in front of `target`, such as http://127.0.0.1:8333."""
    order = json.dumps({"target": target, **asdict(terms or Terms())})
    process = subprocess.Popen(
        [sys.executable, _PROCESS, order],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield PacedProxy(process)
        finally:
            process.kill()
