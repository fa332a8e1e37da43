"""What the superblock says, and the arithmetic from block and inode numbers to bytes.

Decides which filesystems are read at all: a feature that is not known refuses the volume, and a
geometry that contradicts itself or the volume's size is damage. Layout: struct xfs_dsb in the
kernel's fs/xfs/libxfs/xfs_format.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported, VolumeImage
from backpoint_fusefs.guest.parsers.crc32c_rows import rows_are_sealed

_MAGIC: Final = b"XFSB"
_CRC_OFFSET: Final = 224
_VERSION_MASK: Final = 0xF
_DIRV2: Final = 0x2000
_MORE_BITS: Final = 0x8000
_V2_FTYPE: Final = 0x200
_V2_KNOWN: Final = 0x2 | 0x8 | 0x80 | 0x100 | _V2_FTYPE
"""Lazy counters, attr2, 32 bit project ids, checksums, file types in names."""

_FTYPE: Final = 1 << 0
_META_UUID: Final = 1 << 2
_NEEDS_REPAIR: Final = 1 << 4
_UNREADABLE: Final = {9: "zoned", 10: "zone gaps"}
_READABLE: Final = 0b1_1111_1111
"""File types, sparse inodes, metadata UUID, big times, repair mark, large extent counts, exchanged
ranges, parent pointers (hidden attributes), metadata folder (outside of the tree)."""

_NULL_INO: Final = (1 << 64) - 1
_INO_BITS_MAX: Final = 39
"""What a FileId can carry: 256 TiB of volume with inodes of 512 bytes."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """Sizes in bytes, except for those called blocks. metafiles: inodes that no guest ever sees."""

    version: int
    block_size: int
    block_count: int
    group_blocks: int
    group_count: int
    group_bits: int
    inode_size: int
    inode_bits: int
    folder_block_size: int
    root: int
    metafiles: frozenset[int]
    uuid: bytes
    has_file_types: bool
    log_start: int
    log_blocks: int

    @property
    def sealed(self) -> bool:
        """Whether metadata carries checksums, its own place and its owner."""
        return self.version == 5

    def block_at(self, block: int, count: int = 1) -> int:
        """The byte offset of `count` blocks from a block number (group and block in it) on."""
        group, inner = block >> self.group_bits, block & ((1 << self.group_bits) - 1)
        if group >= self.group_count or inner + count > self._blocks_of(group):
            raise GuestDamaged(f"a pointer to {count} blocks at {block:#x} leaves the volume")
        return (group * self.group_blocks + inner) * self.block_size

    def inode_at(self, ino: int) -> int:
        """The byte offset of an inode, by its number alone."""
        block, slot = ino >> self.inode_bits, ino & ((1 << self.inode_bits) - 1)
        return self.block_at(block) + slot * self.inode_size

    def is_inode_number(self, ino: int) -> bool:
        """Whether there is a place for such an inode on the volume."""
        block = ino >> self.inode_bits
        group, inner = block >> self.group_bits, block & ((1 << self.group_bits) - 1)
        return group < self.group_count and 0 < inner < self._blocks_of(group)

    def _blocks_of(self, group: int) -> int:
        if group < self.group_count - 1:
            return self.group_blocks
        return self.block_count - group * self.group_blocks


def read_superblock(image: VolumeImage) -> Superblock:
    """The first one; the copies in other groups are not tried."""
    raw = image.read(0, 512)
    if len(raw) < 512 or not raw.startswith(_MAGIC):
        raise GuestDamaged("no XFS superblock at the volume's start")
    version_bits, features2 = struct.unpack_from(">H", raw, 100)[0], _int32(raw, 200)
    incompatible = _int32(raw, 216)
    version = version_bits & _VERSION_MASK
    _check_version(version, version_bits, features2)
    if version == 5:
        _check_checksum(image, struct.unpack_from(">H", raw, 102)[0])
        _check_features(incompatible)
    if raw[126]:
        raise GuestDamaged("mkfs.xfs was not completed on this volume")
    more = features2 if version_bits & _MORE_BITS else 0
    typed = incompatible & _FTYPE if version == 5 else more & _V2_FTYPE
    own_uuid = version == 5 and incompatible & _META_UUID
    found = Superblock(
        version=version,
        block_size=_int32(raw, 4),
        block_count=_int64(raw, 8),
        group_blocks=_int32(raw, 84),
        group_count=_int32(raw, 88),
        group_bits=raw[124],
        inode_size=struct.unpack_from(">H", raw, 104)[0],
        inode_bits=raw[123],
        folder_block_size=_int32(raw, 4) << (raw[192] & 15),
        root=_int64(raw, 56),
        metafiles=_metafiles(raw, version),
        uuid=raw[248:264] if own_uuid else raw[32:48],
        has_file_types=bool(typed),
        log_start=_int64(raw, 48),
        log_blocks=_int32(raw, 96),
    )
    _check_geometry(found, image.size)
    return found


def _metafiles(raw: bytes, version: int) -> frozenset[int]:
    """Realtime bitmap and summary, quota of users, groups and projects."""
    offsets = [64, 72, 160, 168] + ([232] if version == 5 else [])
    return frozenset(_int64(raw, offset) for offset in offsets) - {0, _NULL_INO}


def _check_version(version: int, bits: int, features2: int) -> None:
    if version == 5:
        return
    if version != 4 or not bits & _DIRV2:
        raise GuestUnsupported(f"XFS of version {version} with its old kind of folders")
    unknown = features2 & ~_V2_KNOWN if bits & _MORE_BITS else 0
    if unknown:
        raise GuestUnsupported(f"unknown XFS features {unknown:#x}")


def _check_features(incompatible: int) -> None:
    unknown = incompatible & ~_READABLE
    if unknown:
        bits = (bit for bit in range(32) if unknown >> bit & 1)
        names = ", ".join(_UNREADABLE.get(bit, f"bit {bit}") for bit in bits)
        raise GuestUnsupported(f"XFS features that are not known here: {names}")
    if incompatible & _NEEDS_REPAIR:
        raise GuestDamaged("xfs_repair was begun on this volume and not completed")


def _check_checksum(image: VolumeImage, sector_size: int) -> None:
    sector = image.read(0, sector_size)
    if sector_size < 512 or sector_size % 512 or len(sector) != sector_size:
        raise GuestDamaged("the XFS superblock names an impossible sector size")
    if not rows_are_sealed(sector, sector_size, _CRC_OFFSET)[0]:
        raise GuestDamaged("the XFS superblock's checksum is wrong")


def _check_geometry(found: Superblock, volume_size: int) -> None:
    size, inode_size = found.block_size, found.inode_size
    blocks, groups = found.group_blocks, found.group_count
    smallest = 1024 if found.sealed else 512
    sound = (
        size in (smallest << step for step in range(8))
        and size <= 65536
        and inode_size in (256, 512, 1024, 2048)
        and inode_size >= (512 if found.sealed else 256)
        and inode_size << found.inode_bits == size
        and found.folder_block_size <= 65536
        and found.group_bits <= 31
        and 0 < blocks <= 1 << found.group_bits
        and (groups - 1) * blocks < found.block_count <= groups * blocks
        and found.is_inode_number(found.root)
    )
    if not sound:
        raise GuestDamaged("the XFS superblock contradicts itself")
    if groups << found.group_bits + found.inode_bits > 1 << _INO_BITS_MAX:
        raise GuestUnsupported("an XFS so large that its inode numbers exceed 39 bits")
    if found.block_count * size > volume_size:
        raise GuestDamaged(
            f"the filesystem has {found.block_count * size} bytes, its volume only {volume_size}"
        )


def _int32(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 4], "big")


def _int64(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 8], "big")
