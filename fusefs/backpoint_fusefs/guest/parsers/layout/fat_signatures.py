"""FAT12, FAT16, FAT32 and exFAT, known by their boot sectors, with labels from their root folders.

Offsets are those of Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103) and its
"exFAT file system specification". FAT has no magic number worth the name, so its fields must
make sense together. Which of the three FATs it is, the number of clusters decides.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import (
    Signature,
    label_text,
    serial_text,
)

_FAT12_CLUSTERS = 4085
_FAT16_CLUSTERS = 65525
_EXTENDED_BOOT = (0x28, 0x29)
_NO_NAME = b"NO NAME    "
_ENTRY = 32
_ATTRIBUTES = 11
_LONG_NAME = 0x0F
_VOLUME_ID = 0x08
_FOLDER = 0x10
_EXFAT_LABEL = 0x83
_MAX_ROOT = 65536
_MAX_CLUSTERS = 100
"""Of a root folder, in search of its label, as many as blkid reads; mostly it comes first."""
_MAX_FOLDER = 256 << 10
"""Bytes of those clusters: a thousand forged volumes must not cost gigabytes."""
_FAT_PAGE = 4096
_MAX_EXFAT_CLUSTERS = 8
"""exFAT's are larger, and its label is written by format, before all names."""


class _Boot(NamedTuple):
    sector: int
    cluster: int
    reserved: int
    fats: int
    root_entries: int
    sectors: int
    fat_sectors: int
    wide: bool
    clusters: int


def fat(probe: Probe) -> Signature | None:
    boot = _boot(probe.head)
    if boot is None:
        return None
    if boot.wide:
        kind, root = "fat32", _fat32_root(probe, boot)
        extra = probe.head[66:82]
    else:
        kind = "fat12" if boot.clusters < _FAT12_CLUSTERS else "fat16"
        at = (boot.reserved + boot.fats * boot.fat_sectors) * boot.sector
        root = iter((probe.read(at, min(_MAX_ROOT, boot.root_entries * _ENTRY)),))
        extra = probe.head[38:54]
    serial = struct.unpack_from("<I", extra, 1)[0]
    label = _fat_label(root)
    # Formats before DOS 4 have code where later ones have the serial number.
    uuid = serial_text(serial) if extra[0] in _EXTENDED_BOOT else ""
    return Signature(kind, label, uuid, boot.sectors * boot.sector)


def exfat(probe: Probe) -> Signature | None:
    head = probe.head
    (sectors,) = struct.unpack_from("<Q", head, 72)
    fat_at, _, heap, clusters, root, serial = struct.unpack_from("<6I", head, 80)
    sector_bits, cluster_bits = head[108], head[109]
    if (
        not 9 <= sector_bits <= 12
        or cluster_bits > 25 - sector_bits
        or head[510:512] != b"\x55\xaa"
    ):
        return None
    cluster = 1 << (sector_bits + cluster_bits)
    label = ""
    for _ in range(_MAX_EXFAT_CLUSTERS):
        if not 2 <= root < clusters + 2:
            break
        at = (heap << sector_bits) + (root - 2) * cluster
        found = _exfat_label(probe.read(at, min(cluster, _MAX_ROOT)))
        if found is not None:
            label = found
            break
        link = probe.read((fat_at << sector_bits) + 4 * root, 4)
        root = int.from_bytes(link, "little")
    return Signature("exfat", label, serial_text(serial), sectors << sector_bits)


def _boot(head: bytes) -> _Boot | None:
    sector, cluster, reserved, fats, entries, few_sectors, media, few_fat = struct.unpack_from(
        "<HBHBHHBH", head, 11
    )
    (many_sectors, many_fat) = struct.unpack_from("<II", head, 32)
    if sector not in (512, 1024, 2048, 4096) or cluster not in (1, 2, 4, 8, 16, 32, 64, 128):
        return None
    if not reserved or not fats or (media < 0xF8 and media != 0xF0):
        return None
    named = head[54:57] == b"FAT" or head[82:87] in (b"FAT32", b"MSWIN") or head[54:59] == b"MSDOS"
    # OS/2 put such a sector before filesystems that are not FAT.
    if not named and (head[510:512] != b"\x55\xaa" or head[54:58] in (b"JFS ", b"HPFS")):
        return None
    fat_sectors = few_fat or many_fat
    sectors = few_sectors or many_sectors
    data = sectors - reserved - fats * fat_sectors - -(-entries * _ENTRY // sector)
    if data <= 0 or not fat_sectors or (few_fat and not entries):
        return None
    wide = not few_fat
    clusters = data // cluster
    if clusters > (0x0FFFFFF6 if wide else _FAT16_CLUSTERS):
        return None
    return _Boot(sector, cluster, reserved, fats, entries, sectors, fat_sectors, wide, clusters)


def _fat32_root(probe: Probe, boot: _Boot) -> Iterator[bytes]:
    """The first clusters of the root folder, whole folders of usual size."""
    (cluster,) = struct.unpack_from("<I", probe.head, 44)
    data = (boot.reserved + boot.fats * boot.fat_sectors) * boot.sector
    size = boot.cluster * boot.sector
    page_at, page = -1, b""
    for _ in range(min(_MAX_CLUSTERS, _MAX_FOLDER // min(size, _MAX_ROOT))):
        if not 2 <= cluster < boot.clusters + 2:
            return
        yield probe.read(data + (cluster - 2) * size, min(size, _MAX_ROOT))
        at, within = divmod(4 * cluster, _FAT_PAGE)
        if at != page_at:
            page_at, page = at, probe.read(boot.reserved * boot.sector + at * _FAT_PAGE, _FAT_PAGE)
        cluster = int.from_bytes(page[within : within + 4], "little") & 0x0FFFFFFF


def _fat_label(root: Iterator[bytes]) -> str:
    """From the root folder. The boot sector has one as well, which most systems forget to change:
    blkid and Windows look only here."""
    for folder in root:
        for at in range(0, len(folder) - _ENTRY + 1, _ENTRY):
            entry = folder[at : at + _ENTRY]
            if not entry[0]:
                return ""
            attributes = entry[_ATTRIBUTES] & 0x3F
            if entry[0] == 0xE5 or attributes == _LONG_NAME:
                continue
            first_cluster = entry[20:22] + entry[26:28]
            if attributes & (_VOLUME_ID | _FOLDER) == _VOLUME_ID and not any(first_cluster):
                name = b"\xe5" + entry[1:11] if entry[0] == 5 else entry[:11]
                return "" if name == _NO_NAME else label_text(name, "cp437")
    return ""


def _exfat_label(folder: bytes) -> str | None:
    """None: not here, but perhaps in the next cluster."""
    for at in range(0, len(folder) - _ENTRY + 1, _ENTRY):
        kind, letters = folder[at], folder[at + 1]
        if not kind:
            return ""
        if kind == _EXFAT_LABEL:
            return label_text(folder[at + 2 : at + 2 + 2 * min(letters, 11)], "utf-16-le")
    return None
