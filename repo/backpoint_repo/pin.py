"""What a reader or writer depends on of one point, said so that it can be kept without the point.

A lease carries it: when the point is removed under an open file, a collector still knows which maps
and chunks to keep. Knows nothing of leases.
"""

from __future__ import annotations

from dataclasses import dataclass

from backpoint_repo.point import Point


@dataclass(frozen=True)
class Pin:
    """roots: (size in bytes, map root) of each disk. chunks: ids of its files' chunks."""

    point_id: bytes
    roots: tuple[tuple[int, bytes], ...] = ()
    chunks: tuple[bytes, ...] = ()


def pin_of(point: Point) -> Pin:
    """All that reading the point needs."""
    roots = tuple((disk.size, disk.root) for disk in point.disks)
    return Pin(point.point_id, roots, tuple(chunk for file in point.files for chunk in file.chunks))
