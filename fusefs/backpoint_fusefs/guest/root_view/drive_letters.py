"""Which volume has which drive letter in Windows.

Decides how a value of HKLM\\SYSTEM\\MountedDevices names a partition: 4 bytes of the MBR's disk
signature and 8 of the partition's byte offset, or "DMIO:ID:" and the GPT partition's GUID, all
little-endian; anything else is text that names a removable drive. Without such values letters go
by order. Values in, letters out; reads nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Final
from uuid import UUID

from backpoint_fusefs.guest.volume import Volume

_NAME: Final = re.compile(r"\\DosDevices\\([A-Z]):", re.IGNORECASE | re.ASCII)
_MBR: Final = struct.Struct("<IQ")
_GPT_MARK: Final = b"DMIO:ID:"
_GPT_SIZE: Final = len(_GPT_MARK) + 16
_FIRST: Final = ascii_uppercase.index("C")


def letters_of(
    mounted_devices: Mapping[str, bytes], volumes: Sequence[Volume]
) -> tuple[dict[str, Volume], list[str]]:
    """Letter -> volume; and the letters of fixed drives that are none of the volumes."""
    known: dict[str, Volume] = {}
    by_key: dict[str, Volume] = {}
    for volume in in_disk_order(volumes):
        if key := _key_of_volume(volume):
            # Of cloned disks with one signature Windows takes the first and stops the others.
            by_key.setdefault(key, volume)
    missing = []
    for name, value in mounted_devices.items():
        letter, key = _NAME.fullmatch(name), _key_of_value(value)
        if letter is None or key is None:
            continue
        if found := by_key.get(key):
            known[letter[1].upper()] = found
        else:
            missing.append(letter[1].upper())
    return known, sorted(missing)


def letters_by_order(system: Volume, others: Iterable[Volume]) -> dict[str, Volume]:
    """C is the system's; D, E, ... the others in the order of the disks. None after Z."""
    ordered = [system, *in_disk_order(others)]
    return dict(zip(ascii_uppercase[_FIRST:], ordered, strict=False))


def free_letter(taken: Iterable[str]) -> str | None:
    """The first from C on."""
    return min(set(ascii_uppercase[_FIRST:]) - set(taken), default=None)


def in_disk_order(volumes: Iterable[Volume]) -> list[Volume]:
    """By the disk and the place there of their first bytes."""
    return sorted(volumes, key=lambda volume: volume.pieces[0].stripes[0] if volume.pieces else ())


def _key_of_volume(volume: Volume) -> str | None:
    """PARTUUIDs as blkid writes them: a GUID, or signature-number of an MBR."""
    partition = volume.partition.lower()
    if mbr := re.fullmatch(r"([0-9a-f]{8})-[0-9a-f]{2,}", partition):
        if not volume.pieces:
            return None
        return f"{mbr[1]} at {volume.pieces[0].stripes[0][1]}"
    return partition or None


def _key_of_value(value: bytes) -> str | None:
    if len(value) == _MBR.size:
        signature, offset = _MBR.unpack(value)
        return f"{signature:08x} at {offset}"
    if len(value) == _GPT_SIZE and value.startswith(_GPT_MARK):
        return str(UUID(bytes_le=value[len(_GPT_MARK) :]))
    return None
