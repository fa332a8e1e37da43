"""The superblock of ext2, ext3 and ext4: sizes and features of the filesystem.

Decides which filesystems can be read at all: unknown incompatible features are refused by name,
sizes that contradict each other or the volume are damage. Knows no inode and no journal.
Layout: struct ext4_super_block in the Linux kernel's fs/ext4/ext4.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported, VolumeImage
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c

OFFSET: Final = 1024
SIZE: Final = 1024
ROOT_INO: Final = 2

HAS_JOURNAL: Final = 0x4
SPARSE_SUPER2: Final = 0x200

SPARSE_SUPER: Final = 0x1
HUGE_FILE: Final = 0x8
BIGALLOC: Final = 0x200
METADATA_CSUM: Final = 0x400

FILETYPE: Final = 0x2
RECOVER: Final = 0x4
JOURNAL_DEV: Final = 0x8
META_BG: Final = 0x10
IS_64BIT: Final = 0x80
EA_INODE: Final = 0x400
CSUM_SEED: Final = 0x2000
LARGEDIR: Final = 0x4000

_KNOWN_INCOMPAT: Final = {
    FILETYPE: "filetype",
    RECOVER: "needs_recovery",
    META_BG: "meta_bg",
    0x40: "extents",
    IS_64BIT: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    EA_INODE: "ea_inode",
    CSUM_SEED: "metadata_csum_seed",
    LARGEDIR: "large_dir",
    0x8000: "inline_data",
    # Only the encrypted files themselves cannot be read.
    0x10000: "encrypt",
    0x20000: "casefold",
}
_OTHER_INCOMPAT: Final = {0x1: "compression", 0x1000: "dirdata"}

_MAGIC = 0xEF53
_CRC32C = 1
_MAX_BLOCK_SIZE = 65536


@dataclass(frozen=True)
class Superblock:
    """Sizes in bytes unless they are named otherwise. checksum_seed: of all metadata checksums."""

    block_size: int
    cluster_size: int
    blocks: int
    inodes: int
    first_data_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    first_ino: int
    descriptor_size: int
    first_meta_group: int
    compat: int
    incompat: int
    ro_compat: int
    backup_groups: tuple[int, int]
    journal_ino: int
    checksum_seed: int

    @property
    def groups(self) -> int:
        return -(-(self.blocks - self.first_data_block) // self.blocks_per_group)

    @property
    def has_checksums(self) -> bool:
        return bool(self.ro_compat & METADATA_CSUM)

    @property
    def needs_recovery(self) -> bool:
        return bool(self.compat & HAS_JOURNAL and self.incompat & RECOVER)


def read_superblock(image: VolumeImage) -> Superblock:
    """Raises GuestDamaged or GuestUnsupported where the filesystem cannot be read at all."""
    raw = image.read(OFFSET, SIZE)
    if len(raw) < SIZE or _u16(raw, 0x38) != _MAGIC:
        raise GuestDamaged("there is no ext superblock here")
    # Revision 0 has neither features nor a size of inodes: what lies there means nothing.
    dynamic = _u32(raw, 0x4C) > 0
    compat, incompat, ro_compat = struct.unpack_from("<III", raw, 0x5C) if dynamic else (0, 0, 0)
    _check_features(incompat)
    if ro_compat & METADATA_CSUM:
        _check_checksum(raw)
    if max(_u32(raw, 0x18), _u32(raw, 0x1C)) > 54:
        raise GuestDamaged("the superblock's block size is impossible")
    block_size = 1024 << _u32(raw, 0x18)
    is_64bit = bool(incompat & IS_64BIT)
    found = Superblock(
        block_size=block_size,
        cluster_size=1024 << _u32(raw, 0x1C) if ro_compat & BIGALLOC else block_size,
        blocks=_u32(raw, 0x4) | (_u32(raw, 0x150) << 32 if is_64bit else 0),
        inodes=_u32(raw, 0x0),
        first_data_block=_u32(raw, 0x14),
        blocks_per_group=_u32(raw, 0x20),
        inodes_per_group=_u32(raw, 0x28),
        inode_size=_u16(raw, 0x58) if dynamic else 128,
        first_ino=_u32(raw, 0x54) if dynamic else 11,
        descriptor_size=_u16(raw, 0xFE) if is_64bit else 32,
        first_meta_group=_u32(raw, 0x104),
        compat=compat,
        incompat=incompat,
        ro_compat=ro_compat,
        backup_groups=(_u32(raw, 0x24C), _u32(raw, 0x250)),
        journal_ino=_u32(raw, 0xE0),
        checksum_seed=_checksum_seed(raw, incompat),
    )
    _check_sizes(found, image.size)
    return found


def _u16(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 2], "little")


def _u32(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 4], "little")


def _check_features(incompat: int) -> None:
    if incompat & JOURNAL_DEV:
        raise GuestUnsupported("it is the journal of another filesystem and has no files")
    bits = (1 << at for at in range(32))
    unknown = [bit for bit in bits if incompat & bit and bit not in _KNOWN_INCOMPAT]
    if unknown:
        names = ", ".join(_OTHER_INCOMPAT.get(bit, f"{bit:#x}") for bit in unknown)
        raise GuestUnsupported(f"it has incompatible features that are not known here: {names}")


def _check_checksum(raw: bytes) -> None:
    if raw[0x175] != _CRC32C:
        raise GuestUnsupported(f"its checksums are of an unknown type ({raw[0x175]})")
    if crc32c(0xFFFF_FFFF, raw[:0x3FC]) != _u32(raw, 0x3FC):
        raise GuestDamaged("the superblock's checksum is wrong")


def _checksum_seed(raw: bytes, incompat: int) -> int:
    if incompat & CSUM_SEED:
        return _u32(raw, 0x270)
    return crc32c(0xFFFF_FFFF, raw[0x68:0x78])


def _check_sizes(found: Superblock, volume_size: int) -> None:
    """What `ext4_fill_super` refuses, so that all later arithmetic stays within the volume."""
    block_size = found.block_size
    if block_size > _MAX_BLOCK_SIZE or found.cluster_size not in range(block_size, 1 << 30):
        raise GuestDamaged("the superblock's block size is impossible")
    inode_size = found.inode_size
    if inode_size not in range(128, block_size + 1) or inode_size & (inode_size - 1):
        raise GuestDamaged("the superblock's inode size is impossible")
    if found.descriptor_size not in range(32, 1025) or found.descriptor_size % 8:
        raise GuestDamaged("the superblock's descriptor size is impossible")
    if found.first_ino <= ROOT_INO:
        raise GuestDamaged("the superblock's first inode is impossible")
    if not found.first_data_block < found.blocks <= volume_size // block_size:
        raise GuestDamaged("the superblock's number of blocks does not fit the volume")
    if not found.blocks_per_group or not found.inodes_per_group:
        raise GuestDamaged("the superblock's groups are empty")
    if found.inodes_per_group * found.groups != found.inodes:
        raise GuestDamaged("the superblock's number of inodes is not that of its groups")
