"""Blocks of a volume, read exactly and within the filesystem's bounds.

Decides what is an impossible block number. Knows no structure in a block.
"""

from __future__ import annotations

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeImage
from backpoint_fusefs.guest.parsers.ext.superblock import Superblock


class Blocks:
    """Metadata is read through this; `image` is the volume, or the journal laid over it."""

    def __init__(self, image: VolumeImage, superblock: Superblock) -> None:
        self._image = image
        self._first = superblock.first_data_block
        self._end = superblock.blocks
        self.size = superblock.block_size

    def check(self, block: int, count: int = 1) -> None:
        """Raises GuestDamaged where a file or table cannot lie: outside, or on the superblock."""
        if not self._first < block <= self._end - count:
            raise GuestDamaged(f"something lies in the impossible block {block}")

    def read(self, block: int, count: int = 1) -> bytes:
        self.check(block, count)
        return self.read_bytes(block * self.size, count * self.size)

    def read_bytes(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the volume."""
        data = self._image.read(offset, length)
        if len(data) != length:
            raise GuestDamaged(f"the volume ends before byte {offset + length}")
        return data
