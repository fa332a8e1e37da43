"""The few frames that finding a TCP port takes: ARP and TCP over IPv4, over Ethernet.

Pure: made and read, byte for byte. What comes from guests is read with suspicion: all that is not
one of these two, whole and plain, is nothing. Who sends what when is for `port_probe.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, NamedTuple

BROADCAST: Final = b"\xff" * 6
REQUEST: Final = 1
REPLY: Final = 2
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

_FRAME_MIN: Final = 60
"""Without its checksum, which no socket carries."""
_ARP_TYPE: Final = 0x0806
_IP_TYPE: Final = 0x0800
_TCP: Final = 6
_HEADER: Final = struct.Struct(">6s6sH")
_ARP: Final = struct.Struct(">HHBBH6s4s6s4s")
_ARP_FIXED: Final = (1, _IP_TYPE, 6, 4)
_IP: Final = struct.Struct(">BBHHHBBH4s4s")
_SEGMENT: Final = struct.Struct(">HHIIBBHHH")
_MSS: Final = bytes((2, 4, 1460 >> 8, 1460 & 255))
_TTL: Final = 64
_WINDOW: Final = 8192
_FRAGMENT: Final = 0x3FFF
_WORDS_UNIT: Final = 4


class Station(NamedTuple):
    """A network card and its address."""

    mac: bytes
    ip: IPv4Address


@dataclass(frozen=True)
class Arp:
    """kind: REQUEST or REPLY. asked: the address that it is about, or for."""

    kind: int
    sender: Station
    asked: IPv4Address


@dataclass(frozen=True)
class Segment:
    """TCP's header; flags as SYN, RST and ACK."""

    sender: Station
    receiver: Station
    source: int
    target: int
    sequence: int
    acknowledged: int
    flags: int


def arp_frame(kind: int, sender: Station, receiver: Station) -> bytes:
    """receiver.mac: BROADCAST where it is not known."""
    body = _ARP.pack(
        *_ARP_FIXED,
        kind,
        sender.mac,
        sender.ip.packed,
        bytes(6) if receiver.mac == BROADCAST else receiver.mac,
        receiver.ip.packed,
    )
    return _frame(receiver.mac, sender.mac, _ARP_TYPE, body)


def segment_frame(segment: Segment) -> bytes:
    """Without data; a SYN has the one option that every stack expects."""
    options = _MSS if segment.flags & SYN else b""
    length = _SEGMENT.size + len(options)
    words = [segment.source, segment.target, segment.sequence, segment.acknowledged]
    words += [length // _WORDS_UNIT << 4, segment.flags, _WINDOW]
    ends = segment.sender.ip.packed + segment.receiver.ip.packed
    pseudo = ends + struct.pack(">HH", _TCP, length)
    checksum = _checksum(pseudo + _SEGMENT.pack(*words, 0, 0) + options)
    tcp = _SEGMENT.pack(*words, checksum, 0) + options
    start = (0x45, 0, _IP.size + length, 0, 0x4000, _TTL, _TCP)
    blank = _IP.pack(*start, 0, ends[:4], ends[4:])
    packet = _IP.pack(*start, _checksum(blank), ends[:4], ends[4:]) + tcp
    return _frame(segment.receiver.mac, segment.sender.mac, _IP_TYPE, packet)


def parse_frame(frame: bytes) -> Arp | Segment | None:
    """None for all else. Checksums are not looked at: no wire is between us."""
    if len(frame) < _HEADER.size:
        return None
    target, source, kind = _HEADER.unpack_from(frame)
    body = frame[_HEADER.size :]
    if kind == _ARP_TYPE:
        return _arp(body)
    return _segment(target, source, body) if kind == _IP_TYPE else None


def _arp(body: bytes) -> Arp | None:
    if len(body) < _ARP.size:
        return None
    *fixed, kind, mac, ip, _, asked = _ARP.unpack_from(body)
    if tuple(fixed) != _ARP_FIXED or kind not in (REQUEST, REPLY):
        return None
    return Arp(kind, Station(mac, IPv4Address(ip)), IPv4Address(asked))


def _segment(target: bytes, source: bytes, packet: bytes) -> Segment | None:
    if len(packet) < _IP.size:
        return None
    start, _, _, _, fragment, _, protocol, _, sender, receiver = _IP.unpack_from(packet)
    size = (start & 15) * _WORDS_UNIT
    if start >> 4 != 4 or size < _IP.size or protocol != _TCP or fragment & _FRAGMENT:
        return None
    if len(packet) < size + _SEGMENT.size:
        return None
    own, other, sequence, acknowledged, _, flags, *_ = _SEGMENT.unpack_from(packet, size)
    ends = Station(source, IPv4Address(sender)), Station(target, IPv4Address(receiver))
    return Segment(*ends, own, other, sequence, acknowledged, flags)


def _frame(target: bytes, source: bytes, kind: int, body: bytes) -> bytes:
    return (_HEADER.pack(target, source, kind) + body).ljust(_FRAME_MIN, b"\0")


def _checksum(data: bytes) -> int:
    """The internet's: the complement of the sum of complements. data: an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
