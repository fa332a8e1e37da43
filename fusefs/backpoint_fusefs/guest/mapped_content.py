"""A guest file's bytes, read from where they lie on the stored disks; its parser is not asked.

For files whose every byte has a place; what must be decoded is for `guest_file.py`. Has the shape
of `content.Content`, and `prefetch`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from backpoint_fusefs.guest.filesystem import HOLE, Extent
from backpoint_fusefs.guest.volume_reader import VolumeReader

_ZEROS: Final = bytes(1 << 20)


class ExtentMap:
    """Extents of one file, in order and without gaps."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self._extents = extents
        self._starts = [extent.offset for extent in extents]

    def parts(self, offset: int, end: int) -> Iterator[Extent]:
        """The extents of bytes [offset, end), cut to that range."""
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            extent = self._extents[number]
            inside = offset - extent.offset
            length = min(end - offset, extent.length - inside)
            at = extent.at + inside if extent.at >= 0 else extent.at
            yield Extent(offset, length, at)
            offset += length
            number += 1


class MappedContent:
    """Thread-safe. size: bytes. Raises as `VolumeReader`."""

    def __init__(self, size: int, extents: ExtentMap, volume: VolumeReader) -> None:
        self.size = size
        self._extents = extents
        self._volume = volume

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None:
        """Only from memory."""
        pieces: list[bytes | memoryview] = []
        for part in self._parts(offset, length):
            if part.at == HOLE:
                pieces.append(zeros(part.length))
                continue
            piece = self._volume.read_cached(part.at, part.length)
            if piece is None:
                return None
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Fewer bytes only at the end."""
        pieces = [
            zeros(part.length) if part.at == HOLE else self._volume.read(part.at, part.length)
            for part in self._parts(offset, length)
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, offset: int, length: int) -> None:
        """Bring a range into the cache."""
        for part in self._parts(offset, length):
            if part.at != HOLE:
                self._volume.prefetch(part.at, part.length)

    def _parts(self, offset: int, length: int) -> Iterator[Extent]:
        return self._extents.parts(offset, min(offset + length, self.size))


def zeros(length: int) -> bytes | memoryview:
    """So many zero bytes, mostly without making them."""
    return memoryview(_ZEROS)[:length] if length <= len(_ZEROS) else bytes(length)
