"""The superblock of a btrfs on one device: what it promises, and whether we can read it at all.

Decides which features are known. Knows nothing of trees. Only the primary copy at 64 KiB counts,
as for the kernel; the mirrors are for repair tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dissect.btrfs.c_btrfs import c_btrfs

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported, VolumeImage
from backpoint_fusefs.guest.parsers.btrfs.checksum import Checksum, checksum_of

_OFFSET: Final = 64 << 10
_SIZE: Final = 4096
_MAGIC: Final = b"_BHRfS_M"
_SYSTEM_CHUNKS_MAX: Final = 2048
_LEVELS: Final = 8

# Header flags WRITTEN and RELOC; ERROR and SEEDING of the superblock. The others mean that data is
# missing (metadata dump) or that a conversion was cut off half-way.
_KNOWN_FLAGS: Final = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 32

_INCOMPATIBLE: Final = {
    0: "mixed-backref",
    1: "default-subvolume",
    2: "mixed-groups",
    3: "compress-lzo",
    4: "compress-zstd",
    5: "big-metadata",
    6: "extended-iref",
    7: "raid56",
    8: "skinny-metadata",
    9: "no-holes",
    10: "metadata-uuid",
    11: "raid1c34",
    12: "zoned",
    13: "extent-tree-v2",
    14: "raid-stripe-tree",
    16: "simple-quota",
    17: "remap-tree",
}
_METADATA_UUID: Final = 10
# What each of the others changes is where bytes lie.
_REFUSED: Final = {12, 13, 14, 17}


@dataclass(frozen=True)
class TreeRoot:
    """Where a tree's top node is, and what that node must say of itself."""

    address: int
    level: int
    generation: int


@dataclass(frozen=True)
class Superblock:
    """node_fsid: the UUID that every node carries. checksum: of nodes."""

    node_fsid: bytes
    sector_size: int
    node_size: int
    device: int
    device_size: int
    root: TreeRoot
    chunk_root: TreeRoot
    has_log: bool
    system_chunks: bytes
    checksum: Checksum


def read_superblock(image: VolumeImage) -> Superblock:
    """Raises GuestDamaged, GuestUnsupported."""
    block = image.read(_OFFSET, _SIZE)
    if len(block) != _SIZE or block[64:72] != _MAGIC:
        raise GuestDamaged("there is no btrfs superblock")
    raw = c_btrfs.btrfs_super_block(block)
    checksum = checksum_of(raw.csum_type)
    if not checksum.holds(block):
        raise GuestDamaged("the superblock's checksum is wrong")
    _check_features(raw)
    _check_geometry(raw, image.size)
    separate = raw.incompat_flags >> _METADATA_UUID & 1
    return Superblock(
        node_fsid=bytes(raw.metadata_uuid if separate else raw.fsid),
        sector_size=raw.sectorsize,
        node_size=raw.nodesize,
        device=raw.dev_item.devid,
        device_size=raw.dev_item.total_bytes,
        root=TreeRoot(raw.root, raw.root_level, raw.generation),
        chunk_root=TreeRoot(raw.chunk_root, raw.chunk_root_level, raw.chunk_root_generation),
        has_log=raw.log_root != 0,
        system_chunks=bytes(raw.sys_chunk_array)[: raw.sys_chunk_array_size],
        checksum=checksum,
    )


def _check_features(raw: c_btrfs.btrfs_super_block) -> None:
    strange = [
        _INCOMPATIBLE.get(bit, f"bit {bit}")
        for bit in range(64)
        if raw.incompat_flags >> bit & 1 and (bit in _REFUSED or bit not in _INCOMPATIBLE)
    ]
    if strange:
        raise GuestUnsupported(f"it uses features that are not supported: {', '.join(strange)}")
    if raw.flags & ~_KNOWN_FLAGS:
        raise GuestUnsupported(f"its superblock has unknown flags: {raw.flags & ~_KNOWN_FLAGS:#x}")
    if raw.num_devices != 1:
        raise GuestUnsupported(f"it spans {raw.num_devices} devices; one device is supported")


def _check_geometry(raw: c_btrfs.btrfs_super_block, volume_size: int) -> None:
    sector, node = raw.sectorsize, raw.nodesize
    if sector not in _powers(2048, 65536) or node not in _powers(4096, 65536) or node < sector:
        raise GuestDamaged(f"sectors of {sector} bytes and nodes of {node} bytes are impossible")
    if raw.bytenr != _OFFSET:
        raise GuestDamaged("the superblock is not meant for the place where it is")
    if raw.dev_item.total_bytes > volume_size:
        raise GuestDamaged(
            f"it has {raw.dev_item.total_bytes} bytes, its volume only {volume_size}"
        )
    if max(raw.root_level, raw.chunk_root_level) >= _LEVELS:
        raise GuestDamaged("a tree is deeper than trees can be")
    if raw.sys_chunk_array_size > _SYSTEM_CHUNKS_MAX:
        raise GuestDamaged("the superblock's list of chunks is longer than its space")


def _powers(first: int, last: int) -> list[int]:
    return [1 << bit for bit in range(first.bit_length() - 1, last.bit_length())]
