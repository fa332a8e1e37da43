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
from backpoint_fusefs.guest.parsers.btrfs.superblock import Superblock

Key = tuple[int, int, int]
"""objectid, type, offset."""

Item = tuple[int, int, int, int, int]
"""A key, then in a leaf: where its data is from DATA_START on, how long; above: address and
generation of the child. dissect's cstruct items cost 47 us per directory entry; these, 0.2 us."""

# struct btrfs_header from its fsid on, struct btrfs_item, struct btrfs_key_ptr.
_HEADER: Final = Struct("<32x16sQ8x16xQQIB")
DATA_START: Final = _HEADER.size
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
        start = DATA_START + item[3]
        return self.block[start : start + item[4]]


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
        """Only sound checksums: a node without one is read again alone, from each of its copies."""
        start = run[0][0]
        data = self._image.read(start, run[-1][0] + self._size - start)
        blocks = [data[place - start : place - start + self._size] for place, _ in run]
        if len(blocks[-1]) != self._size:
            return
        sound = self._superblock.checksum.hold(blocks)
        for (_, address), block, is_sound in zip(run, blocks, sound, strict=True):
            if is_sound:
                self._ahead[address] = block

    def _read(self, address: int) -> Node:
        ahead = self._ahead.pop(address, None)
        if ahead is not None:
            return self._parse(address, ahead)
        problem: GuestDamaged | None = None
        for place in self._chunks.copies(address, self._size):
            block = self._image.read(place, self._size)
            try:
                self._check(address, block)
                return self._parse(address, block)
            except GuestDamaged as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _check(self, address: int, block: bytes) -> None:
        if len(block) != self._size:
            raise GuestDamaged(f"the volume ends before the node at address {address}")
        if not self._superblock.checksum.holds(block):
            raise GuestDamaged(f"the checksum of the node at address {address} is wrong")

    def _parse(self, address: int, block: bytes) -> Node:
        fsid, own, generation, owner, count, level = _HEADER.unpack_from(block)
        if fsid != self._superblock.node_fsid or own != address:
            raise GuestDamaged(f"there is no node at address {address}")
        form = _POINTER if level else _ITEM
        end = _HEADER.size + count * form.size
        if level >= _LEVELS or end > self._size:
            raise GuestDamaged(f"the node at address {address} has an impossible header")
        items: list[Item] = list(form.iter_unpack(memoryview(block)[_HEADER.size : end]))
        if not level and items and not _is_packed(items, self._size - DATA_START):
            raise GuestDamaged(f"the items of the node at address {address} are out of place")
        if not all(map(lt, items, islice(items, 1, None))):
            raise GuestDamaged(f"the node at address {address} is not in order")
        return Node(address, generation, owner, level, items, block)


def _is_packed(items: list[Item], room: int) -> bool:
    """Whether the data of a leaf's items lies between their table and the node's end without gaps,
    the first item's last. room: bytes after the header."""
    starts = [start for _, _, _, start, _ in items]
    ends = [start + length for _, _, _, start, length in items]
    return ends == [room, *starts[:-1]] and starts[-1] >= len(items) * _ITEM.size
