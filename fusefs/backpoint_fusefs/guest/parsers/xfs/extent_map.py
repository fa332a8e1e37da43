"""Which blocks of a fork lie where: extent lists in the inode, and their B+trees on disk.

Decides that a map is sound: in order, inside the volume, as many extents as the inode claims, no
tree block met twice. Layout: struct xfs_bmbt_rec and xfs_btree_block in the kernel's
fs/xfs/libxfs/xfs_format.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.xfs.block_reader import BlockReader, Seal, Span
from backpoint_fusefs.guest.parsers.xfs.inode import FORMAT_BTREE, FORMAT_EXTENTS, Fork

LAST_BLOCK: Final = 1 << 54
"""File offsets are 54 bits of blocks."""

_RECORD: Final = struct.Struct(">QQ")
_LEVELS_MAX: Final = 9
"""XFS_BM_MAXLEVELS; a map of 2**48 extents in blocks of 1 KiB needs no more."""

_HEADER: Final = struct.Struct(">4sHH")
_SEAL: Final = Seal(crc=64, place=24, uuid=40, owner=56)
_TREE_BLOCKS_AT_ONCE: Final = 64


class Mapping(NamedTuple):
    """Blocks [first, first + blocks) of a file, at a byte of the volume. unwritten: space without
    content; what lies there is some older file's, and reads must give zeros."""

    first: int
    blocks: int
    at: int
    unwritten: bool


def mappings(
    reader: BlockReader, owner: int, fork: Fork, first: int = 0, end: int = LAST_BLOCK
) -> Iterator[Mapping]:
    """Those of a fork that overlap blocks [first, end), in order."""
    if fork.format == FORMAT_EXTENTS:
        if fork.extents * _RECORD.size > len(fork.raw):
            raise GuestDamaged(f"inode {owner} claims {fork.extents} extents")
        records = _RECORD.iter_unpack(fork.raw[: fork.extents * _RECORD.size])
    elif fork.format == FORMAT_BTREE:
        records = _Tree(reader, owner, first, end).records(fork.raw)
    else:
        raise GuestDamaged(f"inode {owner} has no map of its blocks (format {fork.format})")
    done, count = 0, 0
    for high, low in records:
        found = _decode(reader, high, low)
        if found.first < done or not found.blocks:
            raise GuestDamaged(f"the extents of inode {owner} overlap or are out of order")
        done, count = found.first + found.blocks, count + 1
        if found.first >= end:
            return
        if done > first:
            yield found
    if fork.format == FORMAT_BTREE and (first, end) == (0, LAST_BLOCK) and count != fork.extents:
        raise GuestDamaged(f"inode {owner} claims {fork.extents} extents and has {count}")


def _decode(reader: BlockReader, high: int, low: int) -> Mapping:
    block, count = (high & 0x1FF) << 43 | low >> 21, low & 0x1FFFFF
    at = reader.superblock.block_at(block, count)
    return Mapping(high >> 9 & (LAST_BLOCK - 1), count, at, bool(high >> 63))


class _Tree:
    """A walk through one tree, for blocks [first, end) only."""

    def __init__(self, reader: BlockReader, owner: int, first: int, end: int) -> None:
        self._reader = reader
        self._owner = owner
        self._first, self._end = first, end
        self._seen: set[int] = set()
        self._header_size = 72 if reader.superblock.sealed else 24
        self._magic = b"BMA3" if reader.superblock.sealed else b"BMAP"
        self._places = (reader.superblock.block_size - self._header_size) // 16

    def records(self, root: bytes) -> Iterator[tuple[int, int]]:
        """From the root in the inode on down."""
        level, count = struct.unpack_from(">HH", root)
        if not 0 < level < _LEVELS_MAX:
            raise self._damaged()
        yield from self._below(root[4:], (len(root) - 4) // 16, count, level - 1)

    def _below(self, body: bytes, places: int, count: int, level: int) -> Iterator[tuple[int, int]]:
        """Of a node's children, which are of that level; `places`: how many it has room for."""
        if not 0 < count <= places:
            raise self._damaged()
        keys = struct.unpack_from(f">{count}Q", body)
        pointers = struct.unpack_from(f">{count}Q", body, places * 8)
        wanted = [
            (key, pointer)
            for (key, after), pointer in zip(pairwise((*keys, LAST_BLOCK)), pointers, strict=True)
            if after > self._first and key < self._end
        ]
        for start in range(0, len(wanted), _TREE_BLOCKS_AT_ONCE):
            batch = wanted[start : start + _TREE_BLOCKS_AT_ONCE]
            blocks = self._read([pointer for _, pointer in batch])
            for (key, _), block in zip(batch, blocks, strict=True):
                yield from self._of_block(block, key, level)

    def _read(self, pointers: Sequence[int]) -> list[bytes]:
        superblock = self._reader.superblock
        spans = [Span(superblock.block_at(block), superblock.block_size) for block in pointers]
        blocks = self._reader.read_many(spans)
        for span, block in zip(spans, blocks, strict=True):
            if span.at in self._seen:
                raise self._damaged()
            self._seen.add(span.at)
            self._reader.check_seal(block, span.at, self._owner, _SEAL)
        return blocks

    def _of_block(self, block: bytes, key: int, level: int) -> Iterator[tuple[int, int]]:
        magic, own_level, count = _HEADER.unpack_from(block)
        if magic != self._magic or own_level != level or not 0 < count <= self._places:
            raise self._damaged()
        body = block[self._header_size :]
        own_key = int.from_bytes(body[:8], "big")
        if (own_key if level else own_key >> 9 & (LAST_BLOCK - 1)) != key:
            raise self._damaged()
        if level:
            yield from self._below(body, self._places, count, level - 1)
        else:
            yield from _RECORD.iter_unpack(body[: count * _RECORD.size])

    def _damaged(self) -> GuestDamaged:
        return GuestDamaged(f"the extent tree of inode {self._owner} is damaged")
