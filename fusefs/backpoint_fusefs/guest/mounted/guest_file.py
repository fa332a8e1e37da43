"""A guest file that a program has open.

Decides what opening one gathers, and that only what must be decoded goes through the parser; the
rest is read where it lies. For the event loop, but for `describe_file`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass

from backpoint_fusefs.content import Content
from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.guest.filesystem import DECODED, HOLE, Extent, FileId, Stat
from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_fusefs.guest.mapped_content import ExtentMap, MappedContent, zeros
from backpoint_fusefs.guest.mounted.asked_volume import AskedVolume


@dataclass(frozen=True)
class FileMap:
    """A regular file and where its bytes are. decoded: some only its parser can give."""

    found: Stat
    extents: ExtentMap
    decoded: bool


def describe_file(volume: GuestVolume, file: FileId) -> FileMap | None:
    """Blocks; None for what is no regular file.

    Raises GuestError, and what reading the disks raises.
    """
    found = volume.stat(file)
    if not stat.S_ISREG(found.mode):
        return None
    extents = volume.extents(found)
    return FileMap(found, ExtentMap(extents), any(extent.at == DECODED for extent in extents))


def mapped_content(volume: GuestVolume, described: FileMap) -> Content:
    """Content of a file of which nothing must be decoded."""
    return MappedContent(described.found.size, described.extents, volume.reader)


@dataclass(eq=False)
class DecodedFile:
    """An open file that is decoded in parts. closed: called at the end."""

    volume: AskedVolume
    described: FileMap
    workers: DecodeWorkers
    label: str
    closed: Callable[[], None]

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Raises GuestError, and as `VolumeReader.read`."""
        end = min(offset + length, self.described.found.size)
        pieces = [await self._part(part) for part in self.described.extents.parts(offset, end)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """The program closed it."""
        self.closed()

    async def _part(self, part: Extent) -> bytes | memoryview:
        if part.at == HOLE:
            return zeros(part.length)
        volume = self.volume.blocking
        if part.at == DECODED:
            found = self.described.found
            return await self.volume.run(volume.read, found, part.offset, part.length)
        cached = volume.reader.read_cached(part.at, part.length)
        if cached is not None:
            return cached
        return await self.workers.run(volume.reader.read, part.at, part.length)
