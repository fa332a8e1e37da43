"""The beginning and the end of a volume, read once each, for all who look for magic numbers there.

Decides how much is read: 68 KiB hold the superblocks of all filesystems that are known (btrfs' ends
last), 128 KiB of the end those of software RAID, DRBD and the second GPT. Knows no format.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

from backpoint_fusefs.guest.filesystem import VolumeImage

HEAD_SIZE: Final = 68 * 1024
TAIL_SIZE: Final = 128 * 1024
_MAX_READ = 1 << 20


class Probe:
    """Reads give as many bytes as were asked for: zeros where the volume has none."""

    def __init__(self, image: VolumeImage) -> None:
        self.image = image
        self.size = image.size

    @cached_property
    def head(self) -> bytes:
        """The first bytes, and zeros after a shorter volume's end."""
        return self.image.read(0, min(HEAD_SIZE, self.size)).ljust(HEAD_SIZE, b"\0")

    @cached_property
    def tail(self) -> bytes:
        """The last bytes, after zeros where the volume is shorter."""
        start = max(0, self.size - TAIL_SIZE)
        return self.image.read(start, self.size - start).rjust(TAIL_SIZE, b"\0")

    def read(self, offset: int, length: int) -> bytes:
        """Bytes anywhere; at most 1 MiB of them come from the volume."""
        length = max(0, min(length, _MAX_READ))
        if offset < 0 or offset >= self.size:
            return bytes(length)
        if offset + length <= HEAD_SIZE:
            return self.head[offset : offset + length]
        before_end = self.size - offset
        if "tail" in self.__dict__ and length <= before_end <= TAIL_SIZE:
            start = TAIL_SIZE - before_end
            return self.tail[start : start + length]
        return self.image.read(offset, min(length, before_end)).ljust(length, b"\0")

    def from_end(self, distance: int, length: int) -> bytes:
        """Bytes that begin `distance` before the end, which is at most 128 KiB."""
        return self.tail[TAIL_SIZE - distance :][:length].ljust(length, b"\0")
