"""The extent tree of ext4: an inode's tree of extents, walked in the order of the file.

Decides which trees are possible: every node lies in the range that its parent gives it, so no
walk can be longer than the volume has nodes.
Layout: fs/ext4/ext4_extents.h, checks as `__ext4_ext_check`, checksums as `ext4_extent_block_csum`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.inode import Inode
from backpoint_fusefs.guest.parsers.ext.run import Run

_MAGIC = 0xF30A
_MAX_DEPTH = 5
_MAX_WRITTEN = 32768
_MAX_LOGICAL = 1 << 32
_HEADER = struct.Struct("<HHHHI")  # magic, entries, capacity, depth, generation
_LEAF = struct.Struct("<IHHI")  # first logical block, length, physical high and low
_INDEX = struct.Struct("<IIHH")  # first logical block, node low and high, unused


class ExtentTree:
    """Of one inode. seed: of its checksums, None where there are none."""

    def __init__(self, blocks: Blocks, inode: Inode, seed: int | None) -> None:
        self._blocks = blocks
        self._inode = inode
        self._seed = seed

    def runs(self, end: int) -> Iterator[Run]:
        """Written blocks before logical block `end`. Raises GuestDamaged."""
        depth = _HEADER.unpack_from(self._inode.i_block)[3]
        if depth > _MAX_DEPTH:
            raise self._damage("is too deep")
        return self._node(self._inode.i_block, depth, 0, _MAX_LOGICAL, end)

    def _node(self, raw: bytes, depth: int, low: int, high: int, end: int) -> Iterator[Run]:
        """Of a node whose blocks must all lie in [low, high)."""
        entries = self._entries(raw, depth)
        if depth == 0:
            yield from self._leaf(raw, entries, low, high, end)
            return
        if not entries:
            raise self._damage("has an empty inner node")
        children = list(_INDEX.iter_unpack(raw[12 : 12 + 12 * entries]))
        for number, (first, node_low, node_high, _) in enumerate(children):
            after = children[number + 1][0] if number + 1 < entries else high
            if not low <= first < after <= high:
                raise self._damage("is out of order")
            if first >= end:
                return
            child = self._read_node(node_low | node_high << 32)
            if _HEADER.unpack_from(child)[3] != depth - 1 or not _HEADER.unpack_from(child)[1]:
                raise self._damage("has a node at the wrong depth, or an empty one")
            yield from self._node(child, depth - 1, first, after, end)

    def _leaf(self, raw: bytes, entries: int, low: int, high: int, end: int) -> Iterator[Run]:
        for logical, length, physical_high, physical_low in _LEAF.iter_unpack(
            raw[12 : 12 + 12 * entries]
        ):
            unwritten = length > _MAX_WRITTEN
            count = length - _MAX_WRITTEN if unwritten else length
            if not count or not low <= logical <= high - count:
                raise self._damage("is out of order")
            low = logical + count
            if logical >= end:
                return
            physical = physical_low | physical_high << 32
            self._blocks.check(physical, count)
            if not unwritten:
                yield Run(logical, physical, min(count, end - logical))

    def _entries(self, raw: bytes, depth: int) -> int:
        magic, entries, capacity, found_depth, _ = _HEADER.unpack_from(raw)
        if magic != _MAGIC or found_depth != depth or capacity > (len(raw) - 12) // 12:
            raise self._damage("has a node that is none")
        if entries > capacity:
            raise self._damage("has a node that is too full")
        return int(entries)

    def _read_node(self, block: int) -> bytes:
        raw = self._blocks.read(block)
        if self._seed is not None:
            tail = 12 + 12 * _HEADER.unpack_from(raw)[2]
            if crc32c(self._seed, raw[:tail]) != int.from_bytes(raw[tail : tail + 4], "little"):
                raise self._damage("has a node with a wrong checksum")
        return raw

    def _damage(self, what: str) -> GuestDamaged:
        return GuestDamaged(f"the extent tree of inode {self._inode.ino} {what}")
