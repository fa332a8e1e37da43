"""Bytes that lie in pieces over a volume, read as one: a table, a folder, an attribute.

Knows extents, no filesystem.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from backpoint_fusefs.guest.filesystem import HOLE, Extent, GuestDamaged, VolumeImage


class RunBytes:
    """extents: in order, without gaps from byte 0 on, none of them DECODED."""

    def __init__(self, image: VolumeImage, extents: Sequence[Extent]) -> None:
        self._image = image
        self._extents = extents
        self._starts = [extent.offset for extent in extents]
        self.size = extents[-1].offset + extents[-1].length if extents else 0

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, all of which must be there."""
        end = offset + length
        if offset < 0 or end > self.size:
            raise GuestDamaged(f"bytes {offset} to {end} are not in a run of {self.size}")
        parts = []
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            start, extent_length, at = self._extents[index]
            take = min(start + extent_length, end) - offset
            parts.append(bytes(take) if at == HOLE else self._mapped(at + offset - start, take))
            offset += take
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _mapped(self, at: int, length: int) -> bytes:
        found = self._image.read(at, length)
        if len(found) != length:
            raise GuestDamaged(f"the volume ends before byte {at + length}")
        return found
