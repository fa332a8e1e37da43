"""NTFS, ReFS and BitLocker, known by their boot sectors.

Offsets are those of Microsoft's "NTFS boot sector" and of ntfs-3g's layout.h (MFT_RECORD,
ATTR_RECORD). An NTFS label is in the file $Volume, whose record is the fourth of the MFT.
"""

from __future__ import annotations

import struct

from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature, label_text

_VOLUME_RECORD = 3
_VOLUME_NAME = 0x60
_LAST_ATTRIBUTE = 0xFFFFFFFF
_MAX_RECORD = 65536
_SECTOR = 512


def ntfs(probe: Probe) -> Signature | None:
    head = probe.head
    sector_size, raw_cluster = struct.unpack_from("<HB", head, 0x0B)
    sectors, mft = struct.unpack_from("<QQ", head, 0x28)
    (raw_record,) = struct.unpack_from("<b", head, 0x40)
    (serial,) = struct.unpack_from("<Q", head, 0x48)
    if sector_size not in (256, 512, 1024, 2048, 4096) or not raw_cluster or not sectors:
        return None
    cluster_sectors = raw_cluster if raw_cluster <= 128 else 1 << min(16, 256 - raw_cluster)
    cluster = sector_size * cluster_sectors
    record = raw_record * cluster if raw_record > 0 else 1 << min(16, -raw_record)
    label = ""
    if _SECTOR <= record <= _MAX_RECORD:
        label = _ntfs_label(probe.read(mft * cluster + _VOLUME_RECORD * record, record))
    return Signature("ntfs", label, f"{serial:016X}", sectors * sector_size)


def refs(_: Probe) -> Signature:
    return Signature("refs")


def bitlocker(_: Probe) -> Signature:
    return Signature("bitlocker")


def bitlocker_to_go(probe: Probe) -> Signature | None:
    """Looks like FAT, but for the GUID of the metadata in it."""
    guid = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
    return Signature("bitlocker") if probe.head[0x1A8 : 0x1A8 + 16] == guid else None


def _ntfs_label(record: bytes) -> str:
    """Of the record of $Volume; empty where it has none or is damaged."""
    if record[:4] != b"FILE":
        return ""
    whole = bytearray(record)
    fixups, count = struct.unpack_from("<HH", record, 4)
    for sector in range(1, min(count, len(record) // _SECTOR + 1)):
        saved = record[fixups + 2 * sector : fixups + 2 * sector + 2]
        if len(saved) == 2:
            whole[sector * _SECTOR - 2 : sector * _SECTOR] = saved
    (at,) = struct.unpack_from("<H", whole, 0x14)
    while at + 24 <= len(whole):
        kind, length = struct.unpack_from("<II", whole, at)
        if kind == _LAST_ATTRIBUTE or length < 24:
            break
        if kind == _VOLUME_NAME and not whole[at + 8]:
            size, start = struct.unpack_from("<IH", whole, at + 16)
            return label_text(bytes(whole[at + start : at + start + min(size, 512)]), "utf-16-le")
        at += length
    return ""
