"""A stored disk as one stream of bytes in disk order, zeros for its holes.

Decides only how far ahead is read: as a restore into a file does. Refuses to know who takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from types import TracebackType
from typing import Final

from backpoint_agent.restoring.write_side import Advance
from backpoint_repo.image_reader import ImageReader, Stretch
from backpoint_repo.restore import disk_units, in_disk_order, read_unit
from backpoint_repo.target.contract import Content

_ZEROS: Final = bytes(1 << 20)
Piece = tuple[int, Content | None]
"""Length, and content or None for zeros."""


class DiskStream:
    """A binary file to read once, from one thread. A context: leaving it ends the reading ahead."""

    def __init__(self, reader: ImageReader, advance: Advance) -> None:
        """advance: called with each byte that was taken."""
        self._reader = reader
        self._advance = advance
        self._units = in_disk_order(disk_units(reader), self._read_unit, reader.lanes)
        self._pieces = self._in_order()
        self._current: memoryview | None = None
        self._left = 0

    def __enter__(self) -> DiskStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._units.close()

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the disk's end. Raises as `restore_disk`."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left, content = piece
            self._current = None if content is None else memoryview(content)
        taken = self._take(min(size, self._left))
        self._advance(len(taken))
        return taken

    def _take(self, size: int) -> bytes:
        if self._current is None:
            zeros = _ZEROS[:size]
            self._left -= len(zeros)
            return zeros
        taken = bytes(self._current[:size])
        self._current = self._current[size:]
        self._left -= size
        return taken

    def _in_order(self) -> Iterator[Piece]:
        with closing(self._units):
            for pieces in self._units:
                yield from pieces

    def _read_unit(self, unit: Stretch) -> list[Piece]:
        if not unit.data:
            return [(unit.length, None)]
        return [(length, content) for _, length, content in read_unit(self._reader, unit)]
