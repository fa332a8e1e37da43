"""Whether a guest in a closed network has a port open: asked from within, as a neighbour would.

A neighbour of its own on the switch, so that nothing leads out or in: QEMU's user network beside
the switch would answer with resets for whatever one guest sends to another. Decides what is sent
when; a handshake that the guest's own TCP completes counts, and is ended at once. Never waits.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from backpoint_fusefs.boot.closed_switch import Port
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

_EVERY_S: Final = 1.0
_CLAIM_S: Final = 0.3
"""For whoever has our address already to say so (RFC 5227, in short)."""
_FRAME_MAX: Final = 64 << 10
_FRAMES_MAX: Final = 256
"""Looked at in one go: a guest that floods the network takes nobody else's time."""
_NOBODY: Final = IPv4Address(0)
_PORTS: Final = range(49_152, 65_536)


class PortProbe:
    """A context manager. Its state is a phrase on how far it came, for who waited in vain."""

    def __init__(
        self, wire: Port, own: Sequence[IPv4Address], address: IPv4Address, port: int
    ) -> None:
        """own: addresses that may be ours, beside the guest's; the next where one is taken. address
        and port: asked for. Raises OSError."""
        self.state = f"nobody answers for {address}"
        self._wire = wire
        self._own = list(own)
        self._asked = address, port
        self._mac = b"\x02" + secrets.token_bytes(5)
        self._sequence = secrets.randbits(32)
        self._source = secrets.choice(_PORTS)
        self._claimed_at: float | None = None
        self._next = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind(str(wire.guest))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> PortProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._wire.guest.unlink(missing_ok=True)

    def look(self) -> bool:
        """Whether it is open, as far as is known; asks again every second."""
        found = self._listen()
        now = time.monotonic()
        if not found and now >= self._next:
            self._ask(now)
        return found

    @property
    def _us(self) -> Station:
        return Station(self._mac, self._own[0])

    def _ask(self, now: float) -> None:
        if self._claimed_at is None:
            self._claimed_at = now + _CLAIM_S
            self._next = self._claimed_at
            nobody = Station(self._mac, _NOBODY)
            self._send(arp_frame(REQUEST, nobody, Station(BROADCAST, self._own[0])))
            return
        self._next = now + _EVERY_S
        self._send(arp_frame(REQUEST, self._us, Station(BROADCAST, self._asked[0])))

    def _listen(self) -> bool:
        for _ in range(_FRAMES_MAX):
            try:
                heard = parse_frame(self._socket.recv(_FRAME_MAX))
            except OSError:
                return False
            if isinstance(heard, Arp):
                self._hear_arp(heard)
            elif isinstance(heard, Segment) and self._is_open(heard):
                return True
        return False

    def _hear_arp(self, heard: Arp) -> None:
        if heard.sender.mac == self._mac:
            return
        if heard.sender.ip == self._own[0]:
            self._own.append(self._own.pop(0))
            self._claimed_at, self._next = None, 0.0
        elif self._claimed_at is None or time.monotonic() < self._claimed_at:
            return
        elif heard.kind == REQUEST and heard.asked == self._own[0]:
            self._send(arp_frame(REPLY, self._us, heard.sender))
        elif heard.kind == REPLY and heard.sender.ip == self._asked[0]:
            self._knock(heard.sender)

    def _knock(self, guest: Station) -> None:
        self.state = f"{guest.ip} is there, and does not answer at port {self._asked[1]}"
        self._source = secrets.choice(_PORTS)
        self._sequence = secrets.randbits(32)
        self._send_segment(guest, self._sequence, SYN)

    def _is_open(self, heard: Segment) -> bool:
        address, port = self._asked
        ours = (address, port, self._own[0], self._source, (self._sequence + 1) & 0xFFFFFFFF)
        theirs = (heard.sender.ip, heard.source, heard.receiver.ip, heard.target)
        if (*theirs, heard.acknowledged) != ours or not heard.flags & ACK:
            return False
        if heard.flags & RST:
            self.state = f"{address} refuses connections to port {port}"
            return False
        if not heard.flags & SYN:
            return False
        self._send_segment(heard.sender, heard.acknowledged, RST)
        return True

    def _send_segment(self, guest: Station, sequence: int, flags: int) -> None:
        ports = self._source, self._asked[1]
        self._send(segment_frame(Segment(self._us, guest, *ports, sequence, 0, flags)))

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.sendto(frame, str(self._wire.switch))
        except OSError:
            return  # lost, as on any Ethernet: it is sent again
