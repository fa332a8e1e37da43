"""Inodes by their numbers, one or many: where they lie follows from the number alone.

Decides how they are read (close ones together) and that each one's checksum is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.crc32c_rows import rows_are_sealed
from backpoint_fusefs.guest.parsers.xfs.block_reader import BlockReader, Span
from backpoint_fusefs.guest.parsers.xfs.inode import CRC_OFFSET, Inode, decode_inode

_AT_ONCE: Final = 2048
"""1 MiB of inodes of the common size, 4 MiB of the largest."""


class InodeTable:
    """The latest inode is kept: most calls ask for the same one several times."""

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader
        self._superblock = reader.superblock
        self._latest: Inode | None = None

    def one(self, ino: int) -> Inode:
        """Raises where it cannot be read."""
        if self._latest is not None and self._latest.ino == ino:
            return self._latest
        size = self._superblock.inode_size
        raw = self._reader.read(self._at(ino), size)
        if self._superblock.sealed and not rows_are_sealed(raw, size, CRC_OFFSET)[0]:
            raise GuestDamaged(f"the checksum of inode {ino} is wrong")
        self._latest = decode_inode(raw, ino, self._superblock)
        return self._latest

    def many(self, inos: Sequence[int]) -> Iterator[Inode | None]:
        """In their order; None for one that cannot be read."""
        for first in range(0, len(inos), _AT_ONCE):
            yield from self._batch(inos[first : first + _AT_ONCE])

    def _batch(self, inos: Sequence[int]) -> Iterator[Inode | None]:
        size = self._superblock.inode_size
        # Sparse chunks and cut volumes: an impossible number must not spoil its batch.
        possible = [ino for ino in inos if self._superblock.is_inode_number(ino)]
        spans = [Span(self._superblock.inode_at(ino), size) for ino in possible]
        raws = self._reader.read_many(spans)
        if self._superblock.sealed and raws:
            sound = rows_are_sealed(b"".join(raws), size, CRC_OFFSET)
        else:
            sound = np.ones(len(raws), np.bool_)
        found: dict[int, Inode | None] = {}
        for ino, raw, is_sound in zip(possible, raws, sound.tolist(), strict=True):
            try:
                found[ino] = decode_inode(raw, ino, self._superblock) if is_sound else None
            except GuestDamaged:
                found[ino] = None
        return (found.get(ino) for ino in inos)

    def _at(self, ino: int) -> int:
        if not self._superblock.is_inode_number(ino):
            raise GuestDamaged(f"inode number {ino} lies outside of the volume")
        return self._superblock.inode_at(ino)
