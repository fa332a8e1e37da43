"""An LVM2 physical volume's own label, and the copies of its volume group's metadata on it.

Layout as in LVM2's lib/format_text/layout.h and lib/label/label.h, every part with its checksum.
Own code, not dissect.volume 3.18: that checks nothing, reads only the first copy, and not past the
end of the ring buffer in which the text lies. What the text says, `lvm_text` and `lvm_group` know.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.layout.container_signatures import pv_uuid_text
from backpoint_fusefs.guest.parsers.layout.probe import Probe

_SECTOR = 512
_INITIAL_CRC = 0xF597A6CF
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_IGNORED = 1
_MAX_AREAS = 4
MAX_TEXT: Final = 4 << 20
"""Bytes of one copy of the metadata: enough for 5,000 logical volumes."""


@dataclass(frozen=True)
class PhysicalVolume:
    """texts: the good copies of the metadata. problem: of those that are not good."""

    uuid: str
    texts: tuple[bytes, ...]
    problem: str = ""


def read_physical_volume(probe: Probe) -> PhysicalVolume:
    """Raises GuestDamaged where its label is."""
    label = _label(probe)
    (at,) = struct.unpack_from("<I", label, 20)
    if not 32 <= at <= _SECTOR - 40 - 32:
        raise GuestDamaged("the label of an LVM2 physical volume points outside itself")
    uuid = pv_uuid_text(label[at : at + 32])
    texts: list[bytes] = []
    problem = ""
    for offset, size in _areas(label, at + 40):
        try:
            text = _read_area(probe, offset, size)
        except GuestDamaged as damage:
            problem = str(damage)
        else:
            texts += [text] if text else []
    return PhysicalVolume(uuid, tuple(texts), problem)


def _label(probe: Probe) -> bytes:
    for sector in range(4):
        label = probe.head[sector * _SECTOR : (sector + 1) * _SECTOR]
        if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
            number, checksum = struct.unpack_from("<QI", label, 8)
            if number == sector and checksum == _crc(label[20:]):
                return label
    raise GuestDamaged("the label of an LVM2 physical volume is damaged")


def _areas(label: bytes, at: int) -> list[tuple[int, int]]:
    """Of the two lists (data areas, metadata areas), each ended by zeros, the second."""
    lists: list[list[tuple[int, int]]] = [[], []]
    for places in lists:
        while at + 16 <= _SECTOR:
            offset, size = struct.unpack_from("<QQ", label, at)
            at += 16
            if not offset:
                break
            places.append((offset, size))
    return lists[1][:_MAX_AREAS]


def _read_area(probe: Probe, offset: int, size: int) -> bytes:
    """The metadata in this area; empty where it is not in use."""
    header = probe.read(offset, _SECTOR)
    (checksum,) = struct.unpack_from("<I", header)
    own, own_size = struct.unpack_from("<QQ", header, 24)
    if header[4:20] != _AREA_MAGIC or checksum != _crc(header[4:]) or own != offset:
        raise GuestDamaged("the header of LVM2 metadata is damaged")
    size = min(size, own_size)
    at, length, checksum, flags = struct.unpack_from("<QQII", header, 40)
    if not at or not length or flags & _IGNORED:
        return b""
    if length > MAX_TEXT or not _SECTOR <= at < size or length > size - _SECTOR:
        raise GuestDamaged("LVM2 metadata are said to be where they cannot be")
    if offset + size > probe.size:
        raise GuestDamaged("LVM2 metadata reach beyond the disk's end")
    text = b"".join(
        part
        for start, count in _ring(at, length, size)
        for part in _read_all(probe, offset + start, count)
    )
    if _crc(text) != checksum:
        raise GuestDamaged("LVM2 metadata do not match their checksum")
    return text.rstrip(b"\0")


def _ring(at: int, length: int, size: int) -> list[tuple[int, int]]:
    """The text begins again after the header where it meets the area's end."""
    before = min(length, size - at)
    return [(at, before), (_SECTOR, length - before)] if before < length else [(at, length)]


def _read_all(probe: Probe, offset: int, length: int) -> Iterator[bytes]:
    for start in range(0, length, 1 << 20):
        yield probe.read(offset + start, min(1 << 20, length - start))


def _crc(data: bytes) -> int:
    """CRC-32 with another beginning, and without the inversion of the result."""
    return zlib.crc32(data, _INITIAL_CRC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
