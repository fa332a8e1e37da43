"""A guest file's bytes, read from where they lie on the stored disks; its parser is not asked.

For files whose every byte has a place; what must be decoded is for `guest_file.py`. Has the shape
of `content.Content`, and `prefetch`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from backpoint_fusefs.guest.filesystem import HOLE, Extent
from backpoint_fusefs.guest.volume_reader import VolumeReader

_ZEROS: Final = bytes(1 << 20)


class ExtentMap:
    """Extents of one file, in order and without gaps. Compact, for there can be 200,000 of them."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self._starts = array("q", [extent.offset for extent in extents])
        self._places = array("q", [extent.at for extent in extents])
        self._end = extents[-1].offset + extents[-1].length if extents else 0

    def parts(self, offset: int, end: int) -> Iterator[Extent]:
        """The extents of bytes [offset, end), cut to that range; none of it behind the last."""
        starts, end = self._starts, min(end, self._end)
        number = bisect_right(starts, offset) - 1
        while offset < end:
            stop = starts[number + 1] if number + 1 < len(starts) else self._end
            length = min(end, stop) - offset
            at = self._places[number]
            yield Extent(offset, length, at + offset - starts[number] if at >= 0 else at)
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
        parts = self._parts(offset, length)
        self._volume.prefetch_all((part.at, part.length) for part in parts if part.at != HOLE)

    def _parts(self, offset: int, length: int) -> Iterator[Extent]:
        return self._extents.parts(offset, min(offset + length, self.size))


def zeros(length: int) -> bytes | memoryview:
    """So many zero bytes, mostly without making them."""
    return memoryview(_ZEROS)[:length] if length <= len(_ZEROS) else bytes(length)
