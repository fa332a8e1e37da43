"""A sparse disk in memory that fulfils `ImageSource`: any size, few blocks, failures on demand.

Decides nothing about backups. Holds what was written in 4 KiB blocks and counts what is read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.format import BLOCK_SIZE
from backpoint_repo.source.contract import Extent

_ZERO = bytes(BLOCK_SIZE)


class SyntheticDisk:
    """Bytes unless said otherwise.

    tells_holes: False says one data extent for everything, as a source that cannot tell does.
    fails_at, ends_at: reads that reach this offset raise SourceError, or SourceShrank.
    """

    def __init__(self, size: int, *, tells_holes: bool = True, name: str = "synthetic") -> None:
        self.size = size
        self.name = name
        self.tells_holes = tells_holes
        self.fails_at: int | None = None
        self.ends_at: int | None = None
        self.bytes_read = 0
        self._blocks: dict[int, bytes] = {}

    def write(self, offset: int, data: bytes) -> None:
        """Allocates every block it touches, also with zeros."""
        assert 0 <= offset <= offset + len(data) <= self.size
        for number, start, end in _pieces(offset, len(data)):
            at = number * BLOCK_SIZE + start - offset
            old = self._blocks.get(number, _ZERO)
            self._blocks[number] = old[:start] + data[at : at + end - start] + old[end:]

    def punch(self, offset: int, length: int) -> None:
        """Zero a range; blocks that lie in it whole become holes."""
        for number, start, end in _pieces(offset, length):
            if end - start == BLOCK_SIZE:
                self._blocks.pop(number, None)
            else:
                self.write(number * BLOCK_SIZE + start, bytes(end - start))

    def content(self, offset: int, length: int) -> bytes:
        """What a guest would read; ends at the disk's end."""
        length = max(0, min(length, self.size - offset))
        return b"".join(
            self._blocks.get(number, _ZERO)[start:end]
            for number, start, end in _pieces(offset, length)
        )

    def data_blocks(self) -> set[int]:
        """Numbers of the blocks that are not all zero."""
        return {number for number, block in self._blocks.items() if block != _ZERO}

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        assert 0 <= offset <= end <= self.size
        if not self.tells_holes:
            yield Extent(offset, length, hole=False)
            return
        first, last = offset // BLOCK_SIZE, -(-end // BLOCK_SIZE)
        for number in sorted(n for n in self._blocks if first <= n < last):
            start = max(number * BLOCK_SIZE, offset)
            if start > offset:
                yield Extent(offset, start - offset, hole=True)
            stop = min((number + 1) * BLOCK_SIZE, end)
            yield Extent(start, stop - start, hole=False)
            offset = stop
        if offset < end:
            yield Extent(offset, end - offset, hole=True)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        assert 0 <= offset <= end <= self.size, "the contract: the range lies inside the disk"
        if self.fails_at is not None and end > self.fails_at:
            raise SourceError(f"{self.name}: cannot read at {offset}")
        if self.ends_at is not None and end > self.ends_at:
            raise SourceShrank(f"{self.name}: ends before {end}")
        self.bytes_read += len(buffer)
        buffer[:] = self.content(offset, len(buffer))

    def close(self) -> None:
        pass


def random_disk(
    size: int, seed: int, *, extents: int = 6, longest: int = 1 << 20, tells_holes: bool = True
) -> SyntheticDisk:
    """Random data at random places of a sparse disk; the same for the same arguments."""
    disk = SyntheticDisk(size, tells_holes=tells_holes, name=f"random {seed}")
    scribble(disk, random.Random(seed), extents, longest)
    return disk


def scribble(
    disk: SyntheticDisk, rng: random.Random, writes: int, longest: int
) -> list[tuple[int, int]]:
    """Random writes, zero writes and holes; returns what they touched, as (offset, length)."""
    touched = []
    for _ in range(writes if disk.size else 0):
        offset = rng.randrange(disk.size)
        if rng.random() < 0.5:
            offset -= offset % BLOCK_SIZE
        length = min(rng.randint(1, longest), disk.size - offset)
        kind = rng.random()
        if kind < 0.7:
            disk.write(offset, rng.randbytes(length))
        elif kind < 0.85:
            disk.write(offset, bytes(length))
        else:
            disk.punch(offset, length)
        touched.append((offset, length))
    return touched


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """(block number, start, end within it) of every block that a range touches."""
    end = offset + length
    while offset < end:
        number = offset // BLOCK_SIZE
        start = offset - number * BLOCK_SIZE
        stop = min(BLOCK_SIZE, end - number * BLOCK_SIZE)
        yield number, start, stop
        offset = number * BLOCK_SIZE + stop
