"""Nodes, the blocks that trees are made of: read, checked and kept for a while.

Decides what a sound node is by itself; whether it fits its place in a tree is `tree.py`'s to say.
A copy that is not sound is passed over if there is another (profiles DUP and RAID1).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from operator import lt
from struct import Struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeImage
from backpoint_fusefs.guest.parsers.btrfs.chunks import ChunkMap
from backpoint_fusefs.guest.parsers.btrfs.superblock import Superblock, holds

Key = tuple[int, int, int]
"""objectid, type, offset."""

Item = tuple[int, int, int, int, int]
"""A key, then in a leaf: where in the node its data is, how long; above: address and generation of
the child. dissect's cstruct items cost 47 us per directory entry; these, 0.2 us."""

# struct btrfs_header from its fsid on, struct btrfs_item, struct btrfs_key_ptr.
_HEADER: Final = Struct("<32x16sQ8x16xQQIB")
_ITEM: Final = Struct("<QBQII")
_POINTER: Final = Struct("<QBQQQ")

_LEVELS: Final = 8
# The parsed form takes some ten times of this.
_CACHE_BYTES: Final = 8 << 20
# One read for neighbours: up to this, across gaps up to that.
_RUN_BYTES: Final = 1 << 20
_GAP_BYTES: Final = 64 << 10


class Node(NamedTuple):
    """items: in the order of their keys, which are all different."""

    address: int
    generation: int
    owner: int
    level: int
    items: list[Item]
    block: bytes

    def data(self, item: Item) -> bytes:
        """A leaf's item."""
        return self.block[item[3] : item[3] + item[4]]


class NodeReader:
    """Nodes by their address."""

    def __init__(self, image: VolumeImage, chunks: ChunkMap, superblock: Superblock) -> None:
        self._image = image
        self._chunks = chunks
        self._superblock = superblock
        self._size = superblock.node_size
        self._cache: OrderedDict[int, Node] = OrderedDict()
        self._cache_max = max(64, _CACHE_BYTES // self._size)
        self._ahead: dict[int, bytes] = {}

    def node(self, address: int) -> Node:
        """Raises GuestDamaged."""
        known = self._cache.get(address)
        if known is not None:
            self._cache.move_to_end(address)
            return known
        node = self._read(address)
        self._cache[address] = node
        if len(self._cache) > self._cache_max:
            self._cache.popitem(last=False)
        return node

    def fetch(self, addresses: Iterable[int]) -> None:
        """Nodes that will be wanted next, neighbours in one read. Never raises GuestDamaged: a
        wrong address comes to light when its node is asked for."""
        wanted: list[tuple[int, int]] = []
        for address in addresses:
            if address not in self._cache:
                try:
                    wanted.append((self._chunks.copies(address, self._size)[0], address))
                except GuestDamaged:
                    continue
        self._ahead.clear()
        run: list[tuple[int, int]] = []
        for place, address in sorted(wanted):
            if run and (
                place - run[-1][0] > self._size + _GAP_BYTES or place - run[0][0] > _RUN_BYTES
            ):
                self._fetch_run(run)
                run = []
            run.append((place, address))
        if run:
            self._fetch_run(run)

    def _fetch_run(self, run: list[tuple[int, int]]) -> None:
        start = run[0][0]
        data = self._image.read(start, run[-1][0] + self._size - start)
        for place, address in run:
            self._ahead[address] = data[place - start : place - start + self._size]

    def _read(self, address: int) -> Node:
        ahead = self._ahead.pop(address, None)
        problem: GuestDamaged | None = None
        for place in self._chunks.copies(address, self._size):
            block = self._image.read(place, self._size) if ahead is None else ahead
            ahead = None
            try:
                return self._parse(address, block)
            except GuestDamaged as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _parse(self, address: int, block: bytes) -> Node:
        if len(block) != self._size:
            raise GuestDamaged(f"the volume ends before the node at address {address}")
        fsid, own, generation, owner, count, level = _HEADER.unpack_from(block)
        if fsid != self._superblock.node_fsid or own != address:
            raise GuestDamaged(f"there is no node at address {address}")
        if self._superblock.checksum is not None and not holds(block, self._superblock.checksum):
            raise GuestDamaged(f"the checksum of the node at address {address} is wrong")
        form = _POINTER if level else _ITEM
        end = _HEADER.size + count * form.size
        if level >= _LEVELS or end > self._size:
            raise GuestDamaged(f"the node at address {address} has an impossible header")
        items: list[Item] = list(form.iter_unpack(memoryview(block)[_HEADER.size : end]))
        if not level:
            items = _placed(items, self._size, end, address)
        if not all(map(lt, items, islice(items, 1, None))):
            raise GuestDamaged(f"the node at address {address} is not in order")
        return Node(address, generation, owner, level, items, block)


def _placed(items: list[Item], size: int, table_end: int, address: int) -> list[Item]:
    """Items with their data's place in the node: on disk it counts from the header's end. Data is
    packed against the node's end in the order of the items."""
    placed: list[Item] = []
    end = size
    for objectid, kind, offset, start, length in items:
        start += _HEADER.size
        if start + length != end:
            raise GuestDamaged(f"an item of the node at address {address} is out of its place")
        end = start
        placed.append((objectid, kind, offset, start, length))
    if end < table_end:
        raise GuestDamaged(f"the items of the node at address {address} overlap")
    return placed
