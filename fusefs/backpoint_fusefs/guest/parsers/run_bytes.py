"""Bytes that lie in pieces over a volume, read as one: a table, a folder, an attribute.

Knows extents, no filesystem.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    HOLE,
    Extent,
    GuestDamaged,
    VolumeImage,
)


class RunBytes:
    """extents: in order, without gaps from byte 0 on. decoded: gives the bytes (offset, length) of
    those that are DECODED; without it there may be none."""

    def __init__(
        self,
        image: VolumeImage,
        extents: Sequence[Extent],
        decoded: Callable[[int, int], bytes] | None = None,
    ) -> None:
        self._decoded = decoded
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
            parts.append(self._part(at, offset, offset - start, take))
            offset += take
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_some(self, offset: int, length: int) -> bytes:
        """As many of these bytes as there are."""
        return self.read(offset, max(0, min(length, self.size - offset)))

    def _part(self, at: int, offset: int, inside: int, length: int) -> bytes:
        """inside: bytes from the beginning of the extent."""
        if at == HOLE:
            return bytes(length)
        if at == DECODED and self._decoded is not None:
            return self._decoded(offset, length)
        return self._mapped(at + inside, length)

    def _mapped(self, at: int, length: int) -> bytes:
        found = self._image.read(at, length)
        if len(found) != length:
            raise GuestDamaged(f"the volume ends before byte {at + length}")
        return found
