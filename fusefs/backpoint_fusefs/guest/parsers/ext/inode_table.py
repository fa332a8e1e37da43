"""Inodes by number: where on the volume each lies, and whether its checksum is right.

Decides which numbers a file may have at all, and how much of the table is read and kept at once.
Checksums as `ext4_inode_csum` in fs/ext4/inode.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backpoint_fusefs.guest.filesystem import GuestDamaged, Stat
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.checksum import RowChecksum
from backpoint_fusefs.guest.parsers.ext.group_table import GroupTable
from backpoint_fusefs.guest.parsers.ext.inode import CLASSIC_SIZE, Inode, InodeDecoder
from backpoint_fusefs.guest.parsers.ext.superblock import ROOT_INO, Superblock

# The unit of the worker's cache below: a smaller read would cost the same.
_PIECE_SIZE = 64 << 10
_CACHED_PIECES = 64

_CHECKSUM_LOW = 0x7C
_CHECKSUM_HIGH = 0x82


class _Piece(NamedTuple):
    """Inodes [first, end). wrong: those whose checksums are."""

    first: int
    end: int
    raw: bytes
    wrong: frozenset[int]


class InodeTable:
    """Reads pieces of the table and keeps the last ones: 4 MiB."""

    def __init__(self, blocks: Blocks, superblock: Superblock) -> None:
        self._blocks = blocks
        self._superblock = superblock
        self._decoder = InodeDecoder(superblock)
        self._groups = GroupTable(blocks, superblock)
        self._per_piece = _PIECE_SIZE // superblock.inode_size
        self._row_checksum: RowChecksum | None = None
        self._piece = lru_cache(_CACHED_PIECES)(self._read_piece)

    def inode(self, ino: int) -> Inode:
        """Of a file or the root. Raises GuestDamaged."""
        if ino < self._superblock.first_ino and ino != ROOT_INO:
            raise GuestDamaged(f"inode {ino} is not a file's")
        return self.any_inode(ino)

    def any_inode(self, ino: int) -> Inode:
        """Also of the filesystem's own. Raises GuestDamaged."""
        piece = self._piece_with(ino)
        if ino in piece.wrong:
            raise GuestDamaged(f"inode {ino} has a wrong checksum")
        size = self._superblock.inode_size
        at = (ino - piece.first) * size
        return self._decoder.inode(ino, piece.raw[at : at + size])

    def stats(self, numbers: Iterable[int]) -> dict[int, Stat | None]:
        """Of many files, each piece of the table read once; None for one that cannot be read."""
        found: dict[int, Stat | None] = {}
        size, lowest = self._superblock.inode_size, self._superblock.first_ino
        decode = self._decoder.stat
        piece = _Piece(0, 0, b"", frozenset())
        for ino in sorted(set(numbers)):
            try:
                if ino >= piece.end:
                    piece = self._piece_with(ino)
                if ino in piece.wrong or (ino < lowest and ino != ROOT_INO):
                    found[ino] = None
                else:
                    found[ino] = decode(ino, piece.raw, (ino - piece.first) * size)
            except GuestDamaged:
                found[ino] = None
        return found

    def _piece_with(self, ino: int) -> _Piece:
        if not 0 < ino <= self._superblock.inodes:
            raise GuestDamaged(f"there is no inode {ino}")
        group, index = divmod(ino - 1, self._superblock.inodes_per_group)
        return self._piece(group, index // self._per_piece)

    def _read_piece(self, group: int, number: int) -> _Piece:
        layout = self._superblock
        start = number * self._per_piece
        count = min(self._per_piece, layout.inodes_per_group - start)
        offset = self._groups.inode_table(group) + start * layout.inode_size
        raw = self._blocks.read_bytes(offset, count * layout.inode_size)
        first = group * layout.inodes_per_group + start + 1
        wrong: frozenset[int] = frozenset()
        if layout.has_checksums:
            rows = np.flatnonzero(self._wrong_checksums(first, raw))
            wrong = frozenset((rows + first).tolist())
        return _Piece(first, first + count, raw, wrong)

    def _wrong_checksums(self, first_ino: int, raw: bytes) -> npt.NDArray[np.bool_]:
        """Of all inodes of a piece: number and generation are covered before the inode itself,
        and the checksum's own bytes as zeros."""
        size = self._superblock.inode_size
        inodes = np.frombuffer(raw, np.uint8).reshape(-1, size)
        count = len(inodes)
        numbers = np.arange(first_ino, first_ino + count, dtype="<u4")
        rows = np.empty((count, 8 + size), np.uint8)
        rows[:, :4] = numbers.view(np.uint8).reshape(-1, 4)
        rows[:, 4:8] = inodes[:, 0x64:0x68]
        rows[:, 8:] = inodes
        rows[:, 8 + _CHECKSUM_LOW : 8 + _CHECKSUM_LOW + 2] = 0
        stored = _word(inodes, _CHECKSUM_LOW)
        mask = np.full(count, 0xFFFF, np.uint32)
        if size > CLASSIC_SIZE:
            # Room for the upper half, only where the inode says that it has it.
            has_high = _word(inodes, CLASSIC_SIZE) >= 4
            rows[has_high, 8 + _CHECKSUM_HIGH : 8 + _CHECKSUM_HIGH + 2] = 0
            stored |= np.where(has_high, _word(inodes, _CHECKSUM_HIGH) << np.uint32(16), 0)
            mask[has_high] = 0xFFFF_FFFF
        if self._row_checksum is None:
            self._row_checksum = RowChecksum(8 + size)
        computed = self._row_checksum.of(self._superblock.checksum_seed, rows)
        return np.asarray((computed & mask) != stored, np.bool_)


def _word(rows: npt.NDArray[np.uint8], column: int) -> npt.NDArray[np.uint32]:
    low, high = rows[:, column].astype(np.uint32), rows[:, column + 1].astype(np.uint32)
    return low | high << np.uint32(8)
