"""Metadata in few, large reads, and the seals that version 5 puts on each block of it.

Decides which reads are joined and that a block whose checksum, place or owner is wrong is damage.
Knows no structure beyond where a block's seal is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeImage
from backpoint_fusefs.guest.parsers.crc32c_rows import rows_are_sealed
from backpoint_fusefs.guest.parsers.xfs.superblock import Superblock

_GAP_MAX: Final = 64 << 10
"""The worker fetches 64 KiB blocks: skipping less than one saves nothing."""

_READ_MAX: Final = 1 << 20


class Seal(NamedTuple):
    """Offsets of the four fields in a block's header."""

    crc: int
    place: int
    uuid: int
    owner: int


class Span(NamedTuple):
    """Bytes [at, at + length) of the volume."""

    at: int
    length: int


@dataclass(frozen=True, slots=True)
class BlockReader:
    """The volume, as this filesystem addresses it."""

    image: VolumeImage
    superblock: Superblock

    def read(self, at: int, length: int) -> bytes:
        """All of it, or damage."""
        data = self.image.read(at, length)
        if len(data) != length:
            raise GuestDamaged(f"the volume ends before byte {at + length}")
        return data

    def read_many(self, spans: Sequence[Span]) -> list[bytes]:
        """Each span's bytes, in the order asked; close ones come with one read."""
        found: list[bytes] = [b""] * len(spans)
        order = sorted(range(len(spans)), key=spans.__getitem__)
        first = 0
        while first < len(order):
            start = spans[order[first]].at
            end, after = start, first
            while after < len(order):
                at, length = spans[order[after]]
                if at > end + _GAP_MAX or (after > first and at + length > start + _READ_MAX):
                    break
                end = max(end, at + length)
                after += 1
            data = self.read(start, end - start)
            for index in order[first:after]:
                at, length = spans[index]
                found[index] = data[at - start : at - start + length]
            first = after
        return found

    def check_seal(self, block: bytes, at: int, owner: int, seal: Seal) -> None:
        """Of a block read at `at` that belongs to an inode; version 4 has none."""
        if not self.superblock.sealed:
            return
        place = int.from_bytes(block[seal.place : seal.place + 8], "big")
        whose = int.from_bytes(block[seal.owner : seal.owner + 8], "big")
        uuid = block[seal.uuid : seal.uuid + 16]
        if (place * 512, whose, uuid) != (at, owner, self.superblock.uuid):
            raise GuestDamaged(f"the block at byte {at} does not belong to inode {owner}")
        if not rows_are_sealed(block, len(block), seal.crc)[0]:
            raise GuestDamaged(f"the checksum of the block at byte {at} is wrong")
