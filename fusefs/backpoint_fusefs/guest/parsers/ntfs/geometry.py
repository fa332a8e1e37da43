"""The sizes that NTFS's boot sector gives: sectors, clusters, records, and where the table is.

Format: "NTFS boot sector", BIOS parameter block (Microsoft; ntfs-3g `layout.h`).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeImage

_FIELDS: Final = struct.Struct("<11xHB26xQQQb3xb3x")
_LARGEST_CLUSTER: Final = 2 << 20


class Geometry(NamedTuple):
    """Sizes in bytes; mft_at: offset of the master file table on the volume."""

    cluster: int
    clusters: int
    record: int
    index_block: int
    mft_at: int


def read_geometry(image: VolumeImage) -> Geometry:
    boot = image.read(0, 512)
    if len(boot) < 512 or boot[3:11] != b"NTFS    ":
        raise GuestDamaged("this is no NTFS boot sector")
    sector, per_cluster, sectors, mft, _mirror, record, index_block = _FIELDS.unpack_from(boot)
    # From 64 KiB clusters on, the count is a negative power of two.
    cluster = sector * (per_cluster if per_cluster <= 128 else 1 << (256 - per_cluster))
    if not 256 <= sector <= 4096 or not 512 <= cluster <= _LARGEST_CLUSTER:
        raise GuestDamaged(f"clusters of {cluster} bytes in sectors of {sector}")
    if sector & (sector - 1) or cluster & (cluster - 1):
        raise GuestDamaged("clusters and sectors are no powers of two")
    geometry = Geometry(
        cluster,
        sectors * sector // cluster,
        _block_size(record, cluster),
        _block_size(index_block, cluster),
        mft * cluster,
    )
    # The last sector is the boot sector's copy, and belongs to no cluster.
    if geometry.clusters * cluster > image.size or not 0 < mft < geometry.clusters:
        raise GuestDamaged(f"a filesystem of {sectors} sectors is cut off at byte {image.size}")
    return geometry


def _block_size(clusters: int, cluster: int) -> int:
    """Of records and index blocks: a count of clusters, or a negative power of two."""
    size = clusters * cluster if clusters > 0 else 1 << min(-clusters, 31)
    if not 512 <= size <= 1 << 16 or size & (size - 1):
        raise GuestDamaged(f"NTFS records of {size} bytes")
    return size
