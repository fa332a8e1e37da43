"""Answers of whoever sits at rpcbind's socket."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpoint_fusefs.nfs.portmapper import (
    NoPortmapper,
    Registered,
    portmapper_runs,
    registered,
)

_NUMBERS = itertools.count()


@contextlib.contextmanager
def _answering(folder: Path, answer: Callable[[bytes], bytes]) -> Iterator[Path]:
    """A socket at which one call is answered. answer: out of the call's transaction number."""
    path = folder / f"s{next(_NUMBERS)}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        listening.settimeout(10)

        def serve() -> None:
            stream, _ = listening.accept()
            with stream, contextlib.suppress(ConnectionError):
                stream.sendall(answer(stream.recv(4096)[4:8]))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join(10)


def _text(word: str) -> bytes:
    raw = word.encode()
    return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)


def _reply(xid: bytes, *entries: tuple[str, str]) -> bytes:
    """entries: transport and universal address of program 100003, version 3."""
    result = b"".join(
        struct.pack(">3I", 1, 100003, 3) + _text(transport) + _text(address) + _text("superuser")
        for transport, address in entries
    )
    return _framed(xid + struct.pack(">5I", 1, 0, 0, 0, 0) + result + struct.pack(">I", 0))


def _framed(body: bytes) -> bytes:
    """In two pieces, as long answers come."""
    half = len(body) // 2
    first, last = body[:half], body[half:]
    return struct.pack(">I", half) + first + struct.pack(">I", 1 << 31 | len(last)) + last


def test_what_is_registered_is_taken_apart(tmp_path: Path) -> None:
    """An address' last two numbers are the port; what has no port is left out."""
    entries = (("tcp", "127.0.0.1.8.1"), ("local", "/run/x.sock"), ("tcp6", "::ffff:1.2.3.4.47.17"))
    with _answering(tmp_path, lambda xid: _reply(xid, *entries)) as path:
        assert registered(path) == [
            Registered(100003, 3, "tcp", "127.0.0.1", 2049),
            Registered(100003, 3, "tcp6", "::ffff:1.2.3.4", 12049),
        ]
    with _answering(tmp_path, _reply) as path:
        assert registered(path) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=80), st.booleans())
def test_nonsense_is_no_portmapper(tmp_path: Path, noise: bytes, framed: bool) -> None:
    """Whatever comes is bounded and checked; it cannot be taken for an address."""

    def answer(xid: bytes) -> bytes:
        return _framed(xid + struct.pack(">5I", 1, 0, 0, 0, 0) + noise) if framed else noise

    with _answering(tmp_path, answer) as path, contextlib.suppress(NoPortmapper):
        assert all(isinstance(entry, Registered) for entry in registered(path))


def test_an_answer_to_another_call_is_refused(tmp_path: Path) -> None:
    """The transaction number is ours, and random."""
    with (
        _answering(tmp_path, lambda _: _reply(bytes(4), ("tcp", "127.0.0.1.8.1"))) as path,
        pytest.raises(NoPortmapper),
    ):
        registered(path)


def test_nobody_there_is_no_portmapper(tmp_path: Path) -> None:
    """Neither a missing socket nor one that nobody listens at."""
    assert not portmapper_runs(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    assert not portmapper_runs(tmp_path / "stale")
