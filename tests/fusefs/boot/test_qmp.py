"""QEMU's control protocol, with a peer that is not what it should be."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from backpoint_fusefs.boot.qmp import QmpClient, QmpFailed

GREETING = b'{"QMP": {}}\n'
DONE = b'{"return": {}}\n'


@contextmanager
def _peer(*answers: bytes) -> Iterator[socket.socket]:
    """Says the first at once, then one after each request, then hangs up."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        # It may be hung up on before it has said all.
        with suppress(OSError), theirs, theirs.makefile("rb") as requests:
            for number, answer in enumerate(answers):
                if number and not requests.readline():
                    return
                theirs.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        yield ours
    thread.join()


def test_events_between_are_passed_over() -> None:
    """However the answer's bytes arrive."""
    answer = b'{"event": "RESUME"}\n{"event": "STOP"}\n{"return": [1, 2]}\n'
    with _peer(GREETING, DONE, answer) as wire:
        assert QmpClient(wire).execute("query-it") == [1, 2]


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"", "has ended"),
        (b"nonsense\n", "nonsense"),
        (b"[1]\n", "nonsense"),
        (b"[" * 100_000 + b"\n", "nonsense"),
        (b'{"hello": 1}\n', "greet"),
        (b"x" * (5 << 20), "does not answer"),
    ],
)
def test_a_peer_that_is_no_qemu_is_told(first: bytes, why: str) -> None:
    """One sentence, whatever it says."""
    with _peer(first) as wire, pytest.raises(QmpFailed, match=why):
        QmpClient(wire)


def test_a_refusal_is_told_in_its_words() -> None:
    """On one line that is safe for a terminal."""
    error = json.dumps({"error": {"class": "GenericError", "desc": "no\x1b[2J such"}}).encode()
    with _peer(GREETING, DONE, error + b"\n") as wire:
        client = QmpClient(wire)
        with pytest.raises(QmpFailed, match=r"refuses stop: no\?\[2J such"):
            client.execute("stop")


@pytest.mark.parametrize("do", [lambda c: c.execute("stop"), lambda c: c.execute("cont")])
def test_its_end_is_told(do: Callable[[QmpClient], object]) -> None:
    """Instead of an answer."""
    with _peer(GREETING, DONE) as wire:
        client = QmpClient(wire)
        with pytest.raises(QmpFailed, match="ended"):
            do(client)
