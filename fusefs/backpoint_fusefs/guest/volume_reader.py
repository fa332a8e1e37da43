"""A volume's bytes, gathered from the stored disks that it lies on.

Knows where (`volume_places.py`) and from whom (a reader for each disk); keeps nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_places import places
from backpoint_repo.image_reader import ImageReader


class VolumeReader:
    """size: bytes. Thread-safe. Every method raises GuestDamaged for a range outside."""

    def __init__(self, volume: Volume, disks: Sequence[ImageReader]) -> None:
        self.size = volume.size
        self._volume = volume
        self._disks = disks

    @property
    def lanes(self) -> int:
        """Requests at once that pay off where the disks are stored."""
        return max((disk.lanes for disk in self._disks), default=1)

    def read_cached(self, offset: int, length: int) -> bytes | memoryview | None:
        """Only from memory; None where anything would have to be fetched or decoded."""
        found = places(self._volume, offset, length)
        if len(found) == 1:
            disk, at, size = found[0]
            return self._disks[disk].read_cached(at, size)
        pieces = []
        for disk, at, size in found:
            piece = self._disks[disk].read_cached(at, size)
            if piece is None:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Raises as `ImageReader.read`."""
        found = places(self._volume, offset, length)
        pieces = [self._disks[disk].read(at, size) for disk, at, size in found]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, offset: int, length: int) -> None:
        """Bring a range into the cache. Raises as `read`."""
        self.prefetch_all([(offset, length)])

    def prefetch_all(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Of several (offset, length) what each disk holds at once. Raises as `read`."""
        by_disk: dict[int, list[tuple[int, int]]] = {}
        for offset, length in ranges:
            for disk, at, size in places(self._volume, offset, length):
                by_disk.setdefault(disk, []).append((at, size))
        for disk, wanted in by_disk.items():
            self._disks[disk].expect(*wanted[0])
            self._disks[disk].prefetch_all(wanted)
