"""Which clusters belong together: the chains of a file allocation table, as extents.

Knows no folders. Format: as in `fat_layout.py`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from backpoint_fusefs.guest.filesystem import Extent, GuestDamaged, GuestUnsupported, VolumeImage
from backpoint_fusefs.guest.parsers.fat.fat_layout import FatLayout
from backpoint_fusefs.guest.parsers.recent import Recent

# Entries of the table that are read and kept together.
_BLOCK: Final = 1 << 14
_BLOCKS_MAX: Final = 32
_RUNS_MAX: Final = 1 << 20
# FAT32 reserves the upper four of its bits.
_STORED_BITS: Final = {12: 12, 16: 16, 28: 32, 32: 32}


class FatTable:
    def __init__(self, image: VolumeImage, layout: FatLayout) -> None:
        self._image = image
        self._layout = layout
        self._blocks: Recent[int, list[int]] = Recent(_BLOCKS_MAX)

    def following(self, cluster: int) -> int:
        """What the table says of a cluster: the next one, or a mark that is none."""
        return self._block(cluster // _BLOCK)[cluster % _BLOCK]

    def chain(self, first: int, size: int) -> list[Extent]:
        """Where the first `size` bytes of the chain that begins with `first` are."""
        wanted = -(-size // self._layout.cluster)
        if wanted > self._layout.clusters:
            raise GuestDamaged(f"a file of {size} bytes on a smaller volume")
        return self._extents(self._runs(first, wanted, whole=False), size)

    def whole_chain(self, first: int, most: int) -> list[Extent]:
        """All of a chain, which must not have more than `most` bytes."""
        runs = self._runs(first, most // self._layout.cluster + 1, whole=True)
        size = sum(length for _, length in runs) * self._layout.cluster
        if size > most:
            raise GuestDamaged(f"a folder has more than {most} bytes, or is a circle")
        return self._extents(runs, size)

    def contiguous(self, first: int, size: int) -> list[Extent]:
        """Of a file that has no chain because its clusters lie in order."""
        wanted = -(-size // self._layout.cluster)
        if wanted:
            self._check(first)
            self._check(first + wanted - 1)
        return self._extents([(first, wanted)] if wanted else [], size)

    def _runs(self, first: int, most: int, *, whole: bool) -> list[tuple[int, int]]:
        """(first cluster, how many in order), up to `most` clusters together."""
        runs = []
        start = cluster = first
        limit = self._layout.clusters + 2
        block, index = [], -1
        for count in range(1, most + 1):
            if not 2 <= cluster < limit:
                raise GuestDamaged(f"a chain of clusters leads to {cluster:#x}")
            if count == most:
                break
            if cluster // _BLOCK != index:
                index = cluster // _BLOCK
                block = self._block(index)
            if cluster % _BLOCK >= len(block):
                raise GuestDamaged(f"the table of clusters ends before cluster {cluster}")
            following = block[cluster % _BLOCK]
            if whole and following >= self._end_mark:
                break
            if following != cluster + 1:
                runs.append((start, cluster + 1 - start))
                start = following
                if len(runs) > _RUNS_MAX:
                    raise GuestUnsupported(f"a file of more than {_RUNS_MAX} pieces")
            cluster = following
        if most:
            runs.append((start, cluster + 1 - start))
        return runs

    @property
    def _end_mark(self) -> int:
        return (1 << self._layout.bits) - 8

    def _check(self, cluster: int) -> None:
        if not 2 <= cluster < self._layout.clusters + 2:
            raise GuestDamaged(f"a file is in cluster {cluster}, which does not exist")

    def _extents(self, runs: list[tuple[int, int]], size: int) -> list[Extent]:
        ordered = sorted(runs)
        for (first, count), (following, _) in pairwise(ordered):
            if first + count > following:
                raise GuestDamaged(f"a chain comes twice to cluster {following}")
        extents = []
        offset = 0
        for first, count in runs:
            length = min(count * self._layout.cluster, size - offset)
            at = self._layout.heap_at + (first - 2) * self._layout.cluster
            extents.append(Extent(offset, length, at))
            offset += length
        return extents

    def _block(self, index: int) -> list[int]:
        return self._blocks.get(index, lambda: self._read_block(index))

    def _read_block(self, index: int) -> list[int]:
        bits = self._layout.bits
        length = _BLOCK * _STORED_BITS[bits] // 8
        found = self._image.read(self._layout.table_at + index * length, length)
        if bits == 12:
            return _twelve_bits(found)
        if bits == 16:
            return [int(entry) for entry in np.frombuffer(found, "<u2").tolist()]
        entries = np.frombuffer(found, "<u4", len(found) // 4)
        return [int(entry) for entry in (entries & (1 << bits) - 1).tolist()]


def _twelve_bits(found: bytes) -> list[int]:
    triples = np.frombuffer(found, np.uint8, len(found) // 3 * 3).reshape(-1, 3).astype(np.uint16)
    low = triples[:, 0] | (triples[:, 1] & 15) << 8
    high = triples[:, 1] >> 4 | triples[:, 2] << 4
    return [int(entry) for entry in np.stack((low, high), axis=1).reshape(-1).tolist()]
