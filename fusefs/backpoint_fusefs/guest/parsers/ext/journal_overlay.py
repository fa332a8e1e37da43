"""A volume as its journal will leave it: of blocks with newer copies there, those count.

Decides nothing about which copies count (`journal_log.py` does). Nothing is written anywhere. A
copy's checksum is verified when it is first used: to read all of a journal first would cost seconds
on a cold volume.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from backpoint_fusefs.guest.filesystem import DECODED, GuestDamaged, VolumeImage
from backpoint_fusefs.guest.parsers.ext.checksum import crc32c
from backpoint_fusefs.guest.parsers.ext.journal_superblock import JOURNAL_MAGIC


class Copy(NamedTuple):
    """at: its byte on the volume. escaped: its first four bytes were the journal's magic number and
    are zeros in the journal. seed, checksum: under mask, of the copy; no checksum: mask 0."""

    at: int
    escaped: bool
    seed: int
    checksum: int
    mask: int


class JournalOverlay:
    """Implements VolumeImage. copies: by the block that they replace."""

    def __init__(self, image: VolumeImage, block_size: int, copies: Mapping[int, Copy]) -> None:
        self.size = image.size
        self._image = image
        self._block_size = block_size
        self._copies = copies
        self._order = sorted(copies)
        self._verified: set[int] = set()

    def read(self, offset: int, length: int) -> bytes:
        """Exactly the bytes that were asked for, fewer only where the volume ends."""
        data = self._image.read(offset, length)
        if not self._order or not data:
            return data
        size = self._block_size
        found = self._between(offset // size, (offset + len(data) - 1) // size + 1)
        if not found:
            return data
        changed = bytearray(data)
        for block in found:
            start = max(offset, block * size)
            end = min(offset + len(data), (block + 1) * size)
            copy = self._content(block)
            changed[start - offset : end - offset] = copy[start - block * size : end - block * size]
        return bytes(changed)

    def places(self, block: int, count: int) -> Iterator[tuple[int, int]]:
        """Where the content of blocks of a file is: numbers of blocks, each with the byte on the
        volume or DECODED. Raises GuestDamaged for a copy with a wrong checksum."""
        size, end = self._block_size, block + count
        for copied in self._between(block, end):
            if copied > block:
                yield copied - block, block * size
            self._content(copied)
            copy = self._copies[copied]
            yield 1, DECODED if copy.escaped else copy.at
            block = copied + 1
        if block < end:
            yield end - block, block * size

    def verify(self) -> None:
        """All copies now. Raises GuestDamaged."""
        for block in self._order:
            self._content(block)

    def _between(self, first: int, end: int) -> list[int]:
        order = self._order
        return order[bisect_left(order, first) : bisect_left(order, end)]

    def _content(self, block: int) -> bytes:
        copy = self._copies[block]
        raw = self._image.read(copy.at, self._block_size)
        if len(raw) != self._block_size:
            raise GuestDamaged("the journal ends outside of the volume")
        if copy.mask and block not in self._verified:
            if (crc32c(copy.seed, raw) ^ copy.checksum) & copy.mask:
                raise GuestDamaged(f"the journal's copy of block {block} has a wrong checksum")
            self._verified.add(block)
        return JOURNAL_MAGIC.to_bytes(4, "big") + raw[4:] if copy.escaped else raw
