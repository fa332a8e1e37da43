"""The switch between guests: frames reach whom they are for, and nothing stops it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backpoint_fusefs.boot.closed_switch import ClosedSwitch

BROADCAST = b"\xff" * 6
NOBODY = b"\x02\0\0\0\0\x99"


def address(guest: int) -> bytes:
    return b"\x02\0\0\0\0" + bytes([guest])


class Guest:
    """A socket as QEMU's."""

    def __init__(self, switch: ClosedSwitch, number: int) -> None:
        self._port = switch.ports[number]
        self.address = address(number)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self._port.guest))
        self.socket.settimeout(10)

    def send(self, to: bytes, payload: bytes, sender: bytes | None = None) -> None:
        frame = to + (self.address if sender is None else sender) + b"\x88\xb5" + payload
        self.socket.sendto(frame, str(self._port.switch))

    def raw(self, frame: bytes) -> None:
        self.socket.sendto(frame, str(self._port.switch))

    def next(self) -> bytes:
        return self.socket.recv(1 << 16)[14:]


@contextmanager
def _network(folder: Path, count: int) -> Iterator[list[Guest]]:
    with ClosedSwitch(folder, count) as switch, ExitStack() as stack:
        guests = [Guest(switch, number) for number in range(count)]
        for guest in guests:
            stack.callback(guest.socket.close)
        yield guests


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Guest]]:
    with _network(tmp_path, 3) as guests:
        yield guests


def test_a_broadcast_reaches_all_others(three: list[Guest]) -> None:
    """And not its sender: the next thing it hears is the answer."""
    three[0].send(BROADCAST, b"who has it?")
    assert three[1].next() == three[2].next() == b"who has it?"
    three[2].send(three[0].address, b"I have")
    assert three[0].next() == b"I have"


def test_a_known_receiver_gets_it_alone(three: list[Guest]) -> None:
    """Once it has been heard of; until then all get it."""
    three[0].send(three[1].address, b"unknown yet")
    assert three[1].next() == three[2].next() == b"unknown yet"
    three[1].send(three[0].address, b"here")
    assert three[0].next() == b"here"
    three[0].send(three[1].address, b"for you")
    three[0].send(BROADCAST, b"for all")
    assert [three[1].next(), three[1].next()] == [b"for you", b"for all"]
    assert three[2].next() == b"for all"


def test_who_moves_is_found_at_the_new_place(three: list[Guest]) -> None:
    """As after a failover: the address is sent from another port."""
    three[1].send(BROADCAST, b"1", sender=NOBODY)
    three[0].next(), three[2].next()
    three[2].send(BROADCAST, b"2", sender=NOBODY)
    three[0].next(), three[1].next()
    three[0].send(NOBODY, b"to the moved one")
    three[0].send(BROADCAST, b"end")
    assert three[2].next() == b"to the moved one"
    assert three[1].next() == b"end"


def test_rubbish_does_not_stop_it(three: list[Guest]) -> None:
    """Too short frames, made-up senders without end, a guest that has gone."""
    for size in (0, 1, 13):
        three[0].raw(b"\xff" * size)
    for number in range(3000):
        three[0].send(three[0].address, b"", sender=b"\x02" + number.to_bytes(5, "big"))
    three[2].socket.close()
    # The switch drops what it has no room for, as a network may: ask until it is heard.
    three[1].socket.settimeout(0.2)
    heard = b""
    for _ in range(50):
        three[0].send(BROADCAST, b"still there?")
        with contextlib.suppress(TimeoutError):
            while heard != b"still there?":
                heard = three[1].next()
    assert heard == b"still there?"


def test_it_leaves_nothing(tmp_path: Path) -> None:
    """A second one can be made at the same place."""
    for _ in range(2):
        with ClosedSwitch(tmp_path, 2) as switch:
            assert all(port.switch.exists() for port in switch.ports)
        assert list(tmp_path.iterdir()) == []
