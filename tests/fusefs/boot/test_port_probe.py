"""Asking at a guest's port from within its network: what counts as open, what is said if not."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.boot.closed_switch import ClosedSwitch
from backpoint_fusefs.boot.ethernet_frames import (
    ACK,
    BROADCAST,
    REPLY,
    REQUEST,
    RST,
    SYN,
    Arp,
    Segment,
    Station,
    arp_frame,
    parse_frame,
    segment_frame,
)
from backpoint_fusefs.boot.port_probe import PortProbe

GUEST = Station(b"\x02guest", IPv4Address("10.9.0.2"))
OWN = [IPv4Address("10.9.0.253"), IPv4Address("10.9.0.252")]
LIMIT_S = 20.0


class Guest:
    """A card on the switch, and the probe that asks for it."""

    def __init__(self, switch: ClosedSwitch, probe: PortProbe) -> None:
        self.probe = probe
        self._switch = str(switch.ports[0].switch)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(switch.ports[0].guest))
        self.socket.settimeout(0.02)

    def send(self, frame: bytes) -> None:
        self.socket.sendto(frame, self._switch)

    def hear(self, wanted: Callable[[Arp | Segment], bool]) -> Arp | Segment:
        """The next such frame; the probe goes on meanwhile, and has not found anything open."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            assert not self.probe.look()
            try:
                heard = parse_frame(self.socket.recv(2000))
            except TimeoutError:
                continue
            if heard is not None and wanted(heard):
                return heard
        raise AssertionError("it was not heard in time")

    def hear_syn(self) -> Segment:
        """Once it has told where it is."""
        asked = self.hear(is_question)
        assert isinstance(asked, Arp)
        self.send(arp_frame(REPLY, GUEST, asked.sender))
        syn = self.hear(lambda heard: isinstance(heard, Segment))
        assert isinstance(syn, Segment)
        assert (syn.flags, syn.receiver, syn.target) == (SYN, GUEST, 80)
        return syn

    def answer(self, syn: Segment, flags: int, acknowledged: int | None = None) -> None:
        number = (syn.sequence + 1) & 0xFFFFFFFF if acknowledged is None else acknowledged
        own, other = syn.target, syn.source
        self.send(segment_frame(Segment(GUEST, syn.sender, own, other, 7, number, flags)))

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def is_question(heard: Arp | Segment) -> bool:
    """For the guest's address, by somebody who has one."""
    return isinstance(heard, Arp) and heard.asked == GUEST.ip and bool(int(heard.sender.ip))


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with (
        ClosedSwitch(tmp_path, 2) as switch,
        PortProbe(switch.ports[1], OWN, GUEST.ip, 80) as probe,
    ):
        made = Guest(switch, probe)
        with made.socket:
            yield made
    assert [path.name for path in tmp_path.iterdir()] == ["guest0"]


def test_a_completed_handshake_is_an_open_port(guest: Guest) -> None:
    """And it is ended at once, so that the guest keeps nothing of it."""
    syn = guest.hear_syn()
    guest.answer(syn, SYN | ACK)
    guest.until(guest.probe.look)
    ended = parse_frame(guest.socket.recv(2000))
    assert isinstance(ended, Segment)
    assert (ended.flags, ended.sequence, ended.source) == (RST, syn.sequence + 1, syn.source)


def test_what_is_not_the_answer_to_our_question(guest: Guest) -> None:
    """A refusal, an answer to somebody else, half of one: asked again, and told how it is."""
    assert guest.probe.state == "nobody answers for 10.9.0.2"
    syn = guest.hear_syn()
    guest.answer(syn, SYN | ACK, syn.sequence)
    guest.answer(syn, SYN)
    guest.send(b"\x00" * 20)
    assert "does not answer at port 80" in guest.probe.state
    guest.answer(syn, RST | ACK)
    again = guest.hear_syn()
    assert (again.source, again.sequence) != (syn.source, syn.sequence)
    guest.answer(again, RST | ACK)
    guest.until(lambda: not guest.probe.look() and "refuses" in guest.probe.state)
    guest.answer(guest.hear_syn(), SYN | ACK)
    guest.until(guest.probe.look)


def test_an_address_that_somebody_has_is_left_to_him(guest: Guest) -> None:
    """Asked for before it is used; the next one is taken."""
    claim = guest.hear(lambda heard: isinstance(heard, Arp) and heard.asked == OWN[0])
    assert isinstance(claim, Arp)
    assert claim.sender.ip == IPv4Address(0)
    guest.send(arp_frame(REPLY, Station(b"\x02other", OWN[0]), claim.sender))
    assert guest.hear_syn().sender.ip == OWN[1]


def test_it_answers_for_its_address(guest: Guest) -> None:
    """A guest that forgot where to send its answer asks."""
    asked = guest.hear(is_question)
    assert isinstance(asked, Arp)
    guest.send(arp_frame(REQUEST, GUEST, Station(BROADCAST, asked.sender.ip)))
    told = guest.hear(lambda heard: isinstance(heard, Arp) and heard.kind == REPLY)
    assert isinstance(told, Arp)
    assert told.sender == asked.sender


STATIONS = st.builds(Station, st.binary(min_size=6, max_size=6), st.ip_addresses(v=4))
NUMBERS = st.integers(0, 2**32 - 1)
PORTS = st.integers(0, 2**16 - 1)


@given(st.builds(Segment, STATIONS, STATIONS, PORTS, PORTS, NUMBERS, NUMBERS, st.integers(0, 31)))
def test_a_segment_arrives_as_it_was_sent(segment: Segment) -> None:
    """With checksums that come to nothing, as receivers reckon them."""
    frame = segment_frame(segment)
    assert parse_frame(frame) == segment
    length = int.from_bytes(frame[16:18], "big")
    header, tcp = frame[14:34], frame[34 : 14 + length]
    assert _sum(header) == 0xFFFF
    assert _sum(frame[26:34] + struct.pack(">HH", 6, len(tcp)) + tcp) == 0xFFFF


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


@given(st.data())
def test_no_frame_does_harm(data: st.DataObject) -> None:
    """Guests send what they like: cut, changed, made up."""
    whole = segment_frame(Segment(GUEST, GUEST, 1, 2, 3, 4, SYN))
    arp = arp_frame(REPLY, GUEST, GUEST)
    frame = bytearray(data.draw(st.sampled_from([whole, arp]) | st.binary(max_size=100)))
    for at in data.draw(st.lists(st.integers(0, 99), max_size=4)):
        frame[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
    parse_frame(bytes(frame[: data.draw(st.integers(0, 100))]))
