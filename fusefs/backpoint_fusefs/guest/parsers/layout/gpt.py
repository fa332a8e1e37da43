"""The GUID partition table, from its first copy or else from its last (UEFI specification, 5.3).

A copy counts only if both its checksums are right, as for the kernel (block/partitions/efi.c);
dissect.volume 3.18 checks none, has no second copy, and makes every partition a sector too short.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final
from uuid import UUID

from backpoint_fusefs.guest.parsers.layout.partition import Partition, PartitionTable
from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import label_text

_SIGNATURE: Final = b"EFI PART"
_SECTOR_SIZES = (512, 4096)
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MAX_ENTRIES_SIZE = 512 << 10
"""Bytes of entries; usual are 16 KiB. 512 KiB are as many as a disk with 4096 partitions has."""


def read_gpt(probe: Probe) -> PartitionTable | None:
    """None where neither copy's header can be seen at all."""
    seen = False
    for sector in _SECTOR_SIZES:
        found, entries = _read_copy(probe, sector, 1)
        seen |= found
        if entries is not None:
            return PartitionTable("GPT", _partitions(entries, sector))
    for sector in _SECTOR_SIZES:
        for at in _second_copies(probe, sector):
            found, entries = _read_copy(probe, sector, at)
            seen |= found
            if entries is not None:
                return PartitionTable("GPT", _partitions(entries, sector))
    if not seen:
        return None
    return PartitionTable("GPT", problem="its GPT partition table is damaged in both copies")


def _second_copies(probe: Probe, sector: int) -> list[int]:
    """Where the last copy may be: in the last sector, or, on a disk that has grown, where the
    first one says."""
    last = probe.size // sector - 1
    copies = [last] if last > 1 else []
    if probe.head.startswith(_SIGNATURE, sector):
        (named,) = struct.unpack_from("<Q", probe.head, sector + 32)
        if 1 < named < last:
            copies.append(named)
    if copies:
        # Together with its entries it is well within the last 128 KiB: one read for both.
        _ = probe.tail
    return copies


def _read_copy(probe: Probe, sector: int, at: int) -> tuple[bool, list[bytes] | None]:
    """Whether there is a header in sector number `at`, and its entries if all is right."""
    header = probe.read(at * sector, sector)
    if header[:8] != _SIGNATURE:
        return False, None
    size, checksum = struct.unpack_from("<II", header, 12)
    (own,) = struct.unpack_from("<Q", header, 24)
    (entries_at,) = struct.unpack_from("<Q", header, 72)
    count, entry_size, entries_checksum = struct.unpack_from("<III", header, 80)
    if not 92 <= size <= sector or own != at:
        return True, None
    if zlib.crc32(header[:16] + bytes(4) + header[20:size]) != checksum:
        return True, None
    if entry_size < 128 or entry_size % 8 or not 0 < count * entry_size <= _MAX_ENTRIES_SIZE:
        return True, None
    raw = probe.read(entries_at * sector, count * entry_size)
    if zlib.crc32(raw) != entries_checksum:
        return True, None
    return True, [raw[start : start + 128] for start in range(0, len(raw), entry_size)]


def _partitions(entries: list[bytes], sector: int) -> tuple[Partition, ...]:
    found = []
    for number, entry in enumerate(entries, start=1):
        kind, uuid, first, last, _, name = _ENTRY.unpack(entry)
        if any(kind) and last >= first:
            found.append(
                Partition(
                    number,
                    first * sector,
                    (last - first + 1) * sector,
                    str(UUID(bytes_le=kind)),
                    str(UUID(bytes_le=uuid)),
                    label_text(name, "utf-16-le"),
                )
            )
    return tuple(found)
