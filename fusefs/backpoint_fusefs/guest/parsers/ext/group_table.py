"""The group descriptors: where each group's piece of the inode table lies.

Decides only that; bitmaps and free counts do not matter to a reader.
Layout: struct ext4_group_desc in fs/ext4/ext4.h, meta groups as `descriptor_loc` in super.c.
"""

from __future__ import annotations

from functools import lru_cache

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.superblock import (
    META_BG,
    OFFSET,
    SPARSE_SUPER,
    SPARSE_SUPER2,
    Superblock,
)

# 4 MiB of 4 KiB blocks, the descriptors of an 8 TiB volume; read as they are needed.
_CACHED_BLOCKS = 1024


class GroupTable:
    """Reads descriptors on demand and keeps the last ones."""

    def __init__(self, blocks: Blocks, superblock: Superblock) -> None:
        self._blocks = blocks
        self._superblock = superblock
        self._per_block = superblock.block_size // superblock.descriptor_size
        self._block = lru_cache(_CACHED_BLOCKS)(self._read_block)

    def inode_table(self, group: int) -> int:
        """The byte on the volume where the group's inodes start. Raises GuestDamaged."""
        size = self._superblock.descriptor_size
        index, within = divmod(group, self._per_block)
        raw = self._block(index)[within * size : (within + 1) * size]
        if self._superblock.has_checksums:
            self._check(group, raw)
        block = int.from_bytes(raw[8:12], "little")
        if size >= 64:
            block |= int.from_bytes(raw[0x28:0x2C], "little") << 32
        table = self._superblock.inodes_per_group * self._superblock.inode_size
        self._blocks.check(block, -(-table // self._blocks.size))
        return block * self._blocks.size

    def _check(self, group: int, raw: bytes) -> None:
        seed = crc32c(self._superblock.checksum_seed, group.to_bytes(4, "little"))
        wanted = int.from_bytes(raw[0x1E:0x20], "little")
        if crc32c(seed, raw[:0x1E] + bytes(2) + raw[0x20:]) & 0xFFFF != wanted:
            raise GuestDamaged(f"the descriptor of group {group} has a wrong checksum")

    def _read_block(self, index: int) -> bytes:
        return self._blocks.read(self._place(index))

    def _place(self, index: int) -> int:
        """The block with the descriptors number index * per_block and following."""
        layout = self._superblock
        if not layout.incompat & META_BG or index < layout.first_meta_group:
            return (1 if layout.block_size == OFFSET else 0) + 1 + index
        group = index * self._per_block
        block = layout.first_data_block + group * layout.blocks_per_group
        if layout.block_size == OFFSET and not index and not layout.first_data_block:
            block += 1  # The superblock is in block 1 though the group starts at 0 (bigalloc).
        return block + self._has_superblock(group)

    def _has_superblock(self, group: int) -> bool:
        layout = self._superblock
        if not group:
            return True
        if layout.compat & SPARSE_SUPER2:
            return group in layout.backup_groups
        if group == 1 or not layout.ro_compat & SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    power = base
    while power < number:
        power *= base
    return power == number
