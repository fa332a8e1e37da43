"""The block map of ext2 and ext3: twelve pointers, then blocks of pointers up to three levels deep.

Decides that no block of pointers may serve twice, so that no map is longer than the volume.
Layout: i_block in fs/ext4/ext4.h, levels as `ext4_block_to_path` in fs/ext4/indirect.c.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.inode import Inode
from backpoint_fusefs.guest.parsers.ext.run import Run

_DIRECT = 12
_Pointers = npt.NDArray[np.int64]


class IndirectMap:
    """Of one inode."""

    def __init__(self, blocks: Blocks, inode: Inode) -> None:
        self._blocks = blocks
        self._inode = inode
        self._per_block = blocks.size // 4
        self._seen: set[int] = set()

    def runs(self, end: int) -> Iterator[Run]:
        """Blocks before logical block `end`, holes left out. Raises GuestDamaged."""
        pointers = _pointers(self._inode.i_block)
        yield from self._direct(pointers[:_DIRECT], 0, end)
        first = _DIRECT
        for level, pointer in enumerate(pointers[_DIRECT:].tolist(), 1):
            if pointer and first < end:
                yield from self._below(pointer, level, first, end)
            first += self._per_block**level

    def _below(self, block: int, level: int, first: int, end: int) -> Iterator[Run]:
        """What a block of pointers maps from logical block `first` on."""
        if block in self._seen:
            raise GuestDamaged(f"the block map of inode {self._inode.ino} uses a block twice")
        self._seen.add(block)
        pointers = _pointers(self._blocks.read(block))
        if level == 1:
            yield from self._direct(pointers, first, end)
            return
        each = self._per_block ** (level - 1)
        for number in np.flatnonzero(pointers).tolist():
            at = first + number * each
            if at >= end:
                return
            yield from self._below(int(pointers[number]), level - 1, at, end)

    def _direct(self, pointers: _Pointers, first: int, end: int) -> Iterator[Run]:
        pointers = pointers[: max(0, end - first)]
        used = np.flatnonzero(pointers)
        if not len(used):
            return
        blocks = pointers[used]
        # A run ends where the next block is not the next one of both file and volume.
        breaks = np.flatnonzero((np.diff(used) != 1) | (np.diff(blocks) != 1)) + 1
        starts = [0, *breaks.tolist()]
        for start, stop in zip(starts, [*starts[1:], len(used)], strict=True):
            run = Run(first + int(used[start]), int(blocks[start]), stop - start)
            self._blocks.check(run.physical, run.blocks)
            yield run


def _pointers(raw: bytes) -> _Pointers:
    return np.frombuffer(raw, "<u4").astype(np.int64)
