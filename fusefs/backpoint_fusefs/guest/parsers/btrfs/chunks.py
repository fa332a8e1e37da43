"""Chunks: from the address space that btrfs writes in its trees to bytes of the volume.

Decides where an address is and which copies of it there are. One device only: profiles that keep
whole copies, or a RAID0 of one stripe, which is linear.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported

CHUNK_TREE: Final = 3
CHUNK_OBJECT: Final = 256
CHUNK_ITEM: Final = 228

# struct btrfs_chunk without its stripes, struct btrfs_stripe, struct btrfs_disk_key.
_CHUNK: Final = Struct("<QQQQIIIHH")
_STRIPE: Final = Struct("<QQ16x")
_KEY: Final = Struct("<QBQ")

_RAID0: Final = 1 << 3
_STRIPED: Final = {_RAID0: "RAID0", 1 << 6: "RAID10", 1 << 7: "RAID5", 1 << 8: "RAID6"}
# DATA, SYSTEM, METADATA; RAID0, RAID1, DUP, RAID10, RAID5, RAID6, RAID1C3, RAID1C4.
_KNOWN_TYPE: Final = (1 << 11) - 1
# 256 TiB in chunks of 1 GiB, the usual size of large ones.
_CHUNKS_MAX: Final = 1 << 18


class Chunk(NamedTuple):
    """Addresses [start, start + length), whole copies of them at `places` on the volume."""

    start: int
    length: int
    places: tuple[int, ...]


class ChunkMap:
    """Grows while the chunk tree is read, whose own chunks are named by the superblock."""

    def __init__(self, device: int, volume_size: int) -> None:
        self._device = device
        self._volume_size = volume_size
        self._starts: list[int] = []
        self._chunks: list[Chunk] = []

    def add_system(self, array: bytes) -> None:
        """The superblock's list: keys and chunk items in turn."""
        at = 0
        while at < len(array):
            if len(array) - at < _KEY.size + _CHUNK.size:
                raise GuestDamaged("the superblock's list of chunks ends in the middle of one")
            objectid, kind, start = _KEY.unpack_from(array, at)
            if (objectid, kind) != (CHUNK_OBJECT, CHUNK_ITEM):
                raise GuestDamaged("the superblock's list of chunks holds something else")
            at += _KEY.size
            length = _CHUNK.size + _STRIPE.size * int(_CHUNK.unpack_from(array, at)[7])
            self.add(start, array[at : at + length])
            at += length

    def add(self, start: int, item: bytes) -> None:
        """A chunk item; the same one again changes nothing."""
        chunk = self._parse(start, item)
        slot = bisect_left(self._starts, start)
        if slot < len(self._chunks) and self._chunks[slot] == chunk:
            return
        before = self._chunks[slot - 1 : slot]
        after = self._chunks[slot : slot + 1]
        if any(one.start + one.length > start for one in before) or any(
            start + chunk.length > one.start for one in after
        ):
            raise GuestDamaged(f"two chunks overlap at address {start}")
        if len(self._chunks) >= _CHUNKS_MAX:
            raise GuestDamaged(f"it has more than {_CHUNKS_MAX} chunks")
        self._starts.insert(slot, start)
        self._chunks.insert(slot, chunk)

    def copies(self, address: int, length: int) -> list[int]:
        """Where the volume has these bytes, which no chunk border may cut. One place at least."""
        chunk = self._chunk(address)
        into = address - chunk.start
        if into + length > chunk.length:
            raise GuestDamaged(f"the block at address {address} crosses its chunk's end")
        return [place + into for place in chunk.places]

    def pieces(self, address: int, length: int) -> Iterator[tuple[int, int]]:
        """Bytes in order as (place on the volume, length), from the first copy of each chunk."""
        while length > 0:
            chunk = self._chunk(address)
            into = address - chunk.start
            part = min(length, chunk.length - into)
            yield chunk.places[0] + into, part
            address += part
            length -= part

    def _chunk(self, address: int) -> Chunk:
        slot = bisect_right(self._starts, address) - 1
        if slot < 0 or address >= self._starts[slot] + self._chunks[slot].length:
            raise GuestDamaged(f"no chunk holds the address {address}")
        return self._chunks[slot]

    def _parse(self, start: int, item: bytes) -> Chunk:
        if len(item) < _CHUNK.size + _STRIPE.size:
            raise GuestDamaged(f"the chunk at address {start} is cut off")
        length, _, _, kind, _, _, _, stripes, _ = _CHUNK.unpack_from(item)
        if not stripes or len(item) != _CHUNK.size + _STRIPE.size * stripes:
            raise GuestDamaged(f"the chunk at address {start} is cut off")
        if not length or start + length > 1 << 64:
            raise GuestDamaged(f"the chunk at address {start} has an impossible length")
        self._check_profile(start, kind, stripes)
        # The others are on devices that are not here.
        places = tuple(
            place
            for device, place in _STRIPE.iter_unpack(memoryview(item)[_CHUNK.size :])
            if device == self._device
        )
        if not places:
            raise GuestUnsupported("a device is missing that holds a part of it")
        if max(places) + length > self._volume_size:
            raise GuestDamaged(f"the chunk at address {start} lies beyond the volume's end")
        return Chunk(start, length, places)

    def _check_profile(self, start: int, kind: int, stripes: int) -> None:
        if kind & ~_KNOWN_TYPE:
            raise GuestUnsupported(f"the chunk at address {start} has the unknown type {kind:#x}")
        for bit, name in _STRIPED.items():
            if kind & bit and (bit, stripes) != (_RAID0, 1):
                raise GuestUnsupported(f"it is striped over devices ({name})")
