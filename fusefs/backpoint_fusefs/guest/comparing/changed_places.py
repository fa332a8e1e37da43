"""Where the disks of two points may differ, and so which volumes and extents cannot.

Decides by the maps of the disks alone, disk by disk in their order. Reads no data and knows no
filesystem.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_places import places
from backpoint_repo.disk_map import DiskMap
from backpoint_repo.map_difference import Range, differing_ranges

_NEAR: Final = 1 << 20
"""Ranges so near to each other are kept as one: of a disk of 1 TiB no more than a million."""


class ChangedPlaces:
    """Raises what reading the maps raises."""

    def __init__(self, old: Sequence[DiskMap], new: Sequence[DiskMap]) -> None:
        self._disks = [
            _near_joined(differing_ranges(*pair)) for pair in zip(old, new, strict=False)
        ]
        self.anything = len(old) != len(new) or any(self._disks)

    def same_volume(self, old: Volume, new: Volume) -> bool:
        """Whether all of their bytes are the same, for certain."""
        if (old.size, old.pieces, old.kind) != (new.size, new.pieces, new.kind):
            return False
        return bool(new.pieces) and not any(
            self._touched(disk, offset, piece.length // len(piece.stripes))
            for piece in new.pieces
            for disk, offset in piece.stripes
        )

    def same_bytes(self, old: tuple[Volume, int], new: tuple[Volume, int], length: int) -> bool:
        """Whether bytes at an offset of each volume are the same, for certain."""
        lie = places(*old, length)
        return lie == places(*new, length) and not any(self._touched(*place) for place in lie)

    def _touched(self, disk: int, offset: int, length: int) -> bool:
        if disk >= len(self._disks):
            return True
        ranges = self._disks[disk]
        at = bisect_right(ranges, offset + length - 1, key=lambda found: found.start) - 1
        return at >= 0 and ranges[at].end > offset


def _near_joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for found in ranges:
        if joined and found.start - joined[-1].end < _NEAR:
            joined[-1] = Range(joined[-1].start, found.end - joined[-1].start)
        else:
            joined.append(found)
    return joined
