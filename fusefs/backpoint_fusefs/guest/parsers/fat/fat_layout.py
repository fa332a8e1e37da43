"""Where on a volume a FAT filesystem has its table, its clusters and its root folder.

Formats: "FAT32 File System Specification" (Microsoft 2000), "exFAT file system specification"
(Microsoft 2019), Linux `fs/fat/inode.c` where the former leaves a choice.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported, VolumeImage

_DOS: Final = struct.Struct("<11xHBHBHHxHxxxxxxxxII")
_DOS_32: Final = struct.Struct("<40xHHI")
_EXFAT: Final = struct.Struct("<64x8xQIIIII4xHHBBB")
_FAT12_CLUSTERS: Final = 4084
_FAT16_CLUSTERS: Final = 65524
_FAT32_CLUSTERS: Final = 0x0FFFFFF5
_STATE_DIRTY: Final = 0x01
_MIRROR_OFF: Final = 0x80
_EXFAT_DIRTY: Final = 0x2


class FatLayout(NamedTuple):
    """Places and sizes in bytes. Clusters are numbered from 2.

    bits: that an entry of the table uses: 12, 16, 28 (FAT32) or 32 (exFAT).

    root: the root folder's first cluster, or 0: then it is the root_size bytes at root_at.
    """

    bits: int
    table_at: int
    heap_at: int
    cluster: int
    clusters: int
    root: int
    root_at: int
    root_size: int
    dirty: bool


def read_dos_layout(image: VolumeImage) -> FatLayout:
    boot = image.read(0, 512)
    if len(boot) < 512 or boot[510:512] != b"\x55\xaa":
        raise GuestDamaged("this is no FAT boot sector")
    sector, per_cluster, reserved, tables, root_entries, sectors16, table16, sectors32, table32 = (
        _DOS.unpack_from(boot)
    )
    _check_sizes(sector, per_cluster * sector)
    sectors, table = sectors16 or sectors32, table16 or table32
    root_at = (reserved + tables * table) * sector
    root_size = -(-root_entries * 32 // sector) * sector
    heap_at = root_at + root_size
    clusters = (sectors * sector - heap_at) // (per_cluster * sector)
    if not 0 < tables <= 8 or not table or not reserved or clusters <= 0:
        raise GuestDamaged("the FAT boot sector's sizes do not add up")
    bits = 28 if not table16 else 12 if clusters <= _FAT12_CLUSTERS else 16
    most = {12: _FAT12_CLUSTERS, 16: _FAT16_CLUSTERS, 28: _FAT32_CLUSTERS}[bits]
    clusters = min(clusters, most, table * sector * 8 // (32 if bits == 28 else bits) - 2)
    root = active = 0
    dirty = bool(boot[37] & _STATE_DIRTY) and bits == 16
    if bits == 28:
        flags, version, root = _DOS_32.unpack_from(boot)
        if version:
            raise GuestUnsupported(f"a FAT32 of the unknown version {version}")
        active = flags & 15 if flags & _MIRROR_OFF else 0
        dirty = bool(boot[65] & _STATE_DIRTY)
    if active >= tables:
        raise GuestDamaged("the active one of the tables does not exist")
    table_at = (reserved + active * table) * sector
    layout = FatLayout(
        bits, table_at, heap_at, per_cluster * sector, clusters, root, root_at, root_size, dirty
    )
    return _checked(layout, image, sectors * sector)


def read_exfat_layout(image: VolumeImage) -> FatLayout:
    boot = image.read(0, 512)
    if len(boot) < 512 or boot[3:11] != b"EXFAT   ":
        raise GuestDamaged("this is no exFAT boot sector")
    sectors, table, table_size, heap, clusters, root, version, flags, sector, per, tables = (
        _EXFAT.unpack_from(boot)
    )
    if version >> 8 != 1 or tables not in (1, 2):
        raise GuestUnsupported(f"an exFAT of version {version >> 8} with {tables} tables")
    if not 9 <= sector <= 12 or per > 25 - sector:
        raise GuestDamaged("exFAT's sectors or clusters have impossible sizes")
    if clusters > (table_size << sector) // 4 - 2:
        raise GuestDamaged("exFAT's table is smaller than its clusters need")
    active = table + table_size if flags & 1 and tables == 2 else table
    layout = FatLayout(
        32,
        active << sector,
        heap << sector,
        1 << sector + per,
        clusters,
        root,
        0,
        0,
        bool(flags & _EXFAT_DIRTY),
    )
    return _checked(layout, image, sectors << sector)


def _check_sizes(sector: int, cluster: int) -> None:
    if not 512 <= sector <= 4096 or sector & (sector - 1):
        raise GuestDamaged(f"FAT sectors of {sector} bytes")
    if not cluster or cluster & (cluster - 1) or cluster > 1 << 18:
        raise GuestDamaged(f"FAT clusters of {cluster} bytes")


def _checked(layout: FatLayout, image: VolumeImage, size: int) -> FatLayout:
    end = layout.heap_at + layout.clusters * layout.cluster
    if end > size or end > image.size:
        raise GuestDamaged(f"a filesystem of {end} bytes is cut off at byte {image.size}")
    if layout.root_size == 0 and not 2 <= layout.root < layout.clusters + 2:
        raise GuestDamaged(f"the root folder is in cluster {layout.root}, which does not exist")
    return layout
