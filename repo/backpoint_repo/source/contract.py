"""What the ingest asks of a disk that is to be backed up, and no more.

Every transport (a local file, a block device, qemu-nbd, later VADP) fulfils `ImageSource`.
Knows nothing of chunks or repositories.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Extent(NamedTuple):
    """A stretch of a disk; `hole` promises that it reads as zeros without looking."""

    offset: int
    length: int
    hole: bool


class ImageSource(Protocol):
    """A disk of fixed size. `read_into` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What the user called it: a path or an address. For messages."""

    @property
    def size(self) -> int:
        """Bytes; any value from 0 up, not always a multiple of a sector."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Cover [offset, offset + length) exactly, in order, without gaps.

        Adjacent extents of the same kind may be split. The range lies inside the disk.
        A source that cannot tell holes says one data extent. Raises SourceError.
        """

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset`; the range lies inside the disk.

        Raises SourceShrank where the source ends early, SourceError for any other failure,
        each naming the source and the offset.
        """

    def close(self) -> None:
        """Release descriptors and child processes; idempotent."""
