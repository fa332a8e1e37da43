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

from backpoint_fusefs.nfs.portmapper import NoPortmapper, portmapper_runs, registered_place

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


def _reply(xid: bytes, address: str) -> bytes:
    raw = address.encode()
    padded = raw + bytes(-len(raw) % 4)
    body = xid + struct.pack(">6I", 1, 0, 0, 0, 0, len(raw)) + padded
    return struct.pack(">I", 1 << 31 | len(body)) + body


@pytest.mark.parametrize(
    ("address", "place"),
    [("127.0.0.1.8.1", ("127.0.0.1", 2049)), ("::.47.17", ("::", 12049)), ("", None)],
)
def test_a_universal_address_is_taken_apart(
    tmp_path: Path, address: str, place: tuple[str, int] | None
) -> None:
    """The last two numbers are the port; an empty one says that there is none."""
    with _answering(tmp_path, lambda xid: _reply(xid, address)) as path:
        assert registered_place(100003, 3, path) == place


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=80), st.booleans())
def test_nonsense_is_no_portmapper(tmp_path: Path, noise: bytes, framed: bool) -> None:
    """Whatever comes is bounded and checked; it cannot be taken for an address."""

    def answer(xid: bytes) -> bytes:
        body = xid + noise
        return struct.pack(">I", 1 << 31 | len(body)) + body if framed else noise

    with _answering(tmp_path, answer) as path, contextlib.suppress(NoPortmapper):
        found = registered_place(100003, 3, path)
        assert found is None or isinstance(found[1], int)


def test_an_answer_to_another_call_is_refused(tmp_path: Path) -> None:
    """The transaction number is ours, and random."""
    with (
        _answering(tmp_path, lambda _: _reply(bytes(4), "127.0.0.1.8.1")) as path,
        pytest.raises(NoPortmapper),
    ):
        registered_place(100003, 3, path)


def test_nobody_there_is_no_portmapper(tmp_path: Path) -> None:
    """Neither a missing socket nor one that nobody listens at."""
    assert not portmapper_runs(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    assert not portmapper_runs(tmp_path / "stale")
