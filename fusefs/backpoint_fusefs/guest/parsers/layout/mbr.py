"""The partition table of a PC's master boot record, with the logical partitions in extended ones.

Numbers and limits are those of the kernel (block/partitions/msdos.c): slots are 1 to 4, logical
partitions count from 5 in the order of their chain. dissect.volume 3.18 numbers them otherwise,
and follows a chain that leads back to itself until Python's stack ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from backpoint_fusefs.guest.parsers.layout.partition import (
    MBR_EXTENDED,
    MBR_PROTECTIVE,
    Partition,
    PartitionTable,
)
from backpoint_fusefs.guest.parsers.layout.probe import Probe

_SECTOR = 512
_TABLE = 446
_BOOT_FLAGS = (0, 0x80)
_FIRST_LOGICAL = 5
_MAX_CHAIN = 256
"""Sectors of tables in all; the kernel reads 100 of one extended partition."""


class _Slot(NamedTuple):
    boot: int
    type: int
    start: int
    sectors: int


def read_mbr(probe: Probe) -> PartitionTable | None:
    """None where there is no such table: also for the boot sector of a filesystem."""
    slots = _slots(probe.head[:_SECTOR])
    if slots is None or any(slot.boot not in _BOOT_FLAGS for slot in slots):
        return None
    (disk_id,) = struct.unpack_from("<I", probe.head, 440)
    found: list[Partition] = []
    logical: list[Partition] = []
    for number, slot in enumerate(slots, start=1):
        if slot.type and slot.sectors:
            found.append(_partition(number, disk_id, slot, slot.start))
        if slot.type in MBR_EXTENDED and slot.sectors:
            for start, inner in _chain(probe, slot, _MAX_CHAIN - len(logical)):
                logical.append(_partition(_FIRST_LOGICAL + len(logical), disk_id, inner, start))
    return PartitionTable("MBR", (*found, *logical))


def protects_gpt(probe: Probe) -> bool | None:
    """Whether the MBR says that there is a GPT; None if it says nothing, being empty or gone."""
    slots = _slots(probe.head[:_SECTOR])
    if slots is None or not any(slot.type for slot in slots):
        return None
    return any(slot.type == MBR_PROTECTIVE for slot in slots)


def _slots(sector: bytes) -> list[_Slot] | None:
    if sector[510:512] != b"\x55\xaa":
        return None
    rows = struct.iter_unpack("<B3xB3xII", sector[_TABLE:510])
    return [_Slot(*row) for row in rows]


def _partition(number: int, disk_id: int, slot: _Slot, start: int) -> Partition:
    return Partition(
        number,
        start * _SECTOR,
        slot.sectors * _SECTOR,
        f"{slot.type:02x}",
        f"{disk_id:08x}-{number:02x}" if disk_id else "",
    )


def _chain(probe: Probe, extended: _Slot, limit: int) -> Iterator[tuple[int, _Slot]]:
    """The logical partitions of one extended partition, with the sectors where they begin."""
    at, sectors = extended.start, extended.sectors
    end = extended.start + extended.sectors
    seen: set[int] = set()
    given = 0
    while at not in seen and len(seen) < limit and at * _SECTOR < probe.size:
        seen.add(at)
        slots = _slots(probe.read(at * _SECTOR, _SECTOR))
        if slots is None:
            return
        for position, slot in enumerate(slots):
            if not slot.sectors or slot.type in MBR_EXTENDED:
                continue
            start = at + slot.start
            # The third and fourth slots are not used by most; the kernel wants them to make sense.
            inside = slot.start + slot.sectors <= sectors and start >= extended.start
            if position >= 2 and not (inside and start + slot.sectors <= end):
                continue
            if given == limit:
                return
            given += 1
            yield start, slot
        onward = next((slot for slot in slots if slot.sectors and slot.type in MBR_EXTENDED), None)
        if onward is None:
            return
        at, sectors = extended.start + onward.start, onward.sectors
