"""A stretch of one disk, and a volume's pieces, as images that can be read from their byte 0.

Decides nothing; a read never leaves its stretch. Knows no format.
"""

from __future__ import annotations

from collections.abc import Sequence

from backpoint_fusefs.guest.filesystem import VolumeImage
from backpoint_fusefs.guest.volume import Piece, Volume
from backpoint_fusefs.guest.volume_places import places


class Stretch:
    """Bytes [start, start + size) of disk number `disk`; clipped to the disk's end."""

    def __init__(self, disk: int, image: VolumeImage, start: int, size: int) -> None:
        self.disk = disk
        self.start = start
        self.size = max(0, min(size, image.size - start))
        self._image = image

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        return self._image.read(self.start + offset, length)

    def part(self, offset: int, size: int) -> Stretch:
        """A stretch inside this one."""
        offset = min(max(0, offset), self.size)
        return Stretch(
            self.disk, self._image, self.start + offset, max(0, min(size, self.size - offset))
        )

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """As a volume has them."""
        if not self.size:
            return ()
        return (Piece(0, self.size, self.size, ((self.disk, self.start),)),)


class PiecedImage:
    """The bytes of a volume, gathered from the disks that its pieces lie on."""

    def __init__(self, volume: Volume, disks: Sequence[VolumeImage]) -> None:
        self.size = volume.size
        self._volume = volume
        self._disks = disks

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        return b"".join(
            self._disks[place.disk].read(place.offset, place.length)
            for place in places(self._volume, offset, length)
        )
