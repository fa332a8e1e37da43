"""Extended attributes at hand: those of a whole page of a folder are fetched when one is asked for.

`ls -l` asks twice for each file, and `rsync -X` for each attribute: one by one, 100,000 files would
take a minute. Decides how many are kept. For the event loop only.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.filesystem import FileId, GuestError
from backpoint_fusefs.guest.mounted.asked_volume import AskedVolume

Xattrs = Mapping[bytes, bytes]

_KEPT: Final = 1 << 16
"""Files whose attributes are kept: mostly none, or one label."""
_BYTES_KEPT: Final = 16 << 20
_LISTED_KEPT: Final = 256
"""Parts of listings that are remembered: of 131,072 files."""
_AT_ONCE: Final = 512
_NONE: Final[Xattrs] = {}


@dataclass(frozen=True, eq=False)
class Listed:
    """Files that were listed together, by their numbers; inodes: these in the mount."""

    volume: AskedVolume
    inodes: Sequence[int]
    files: Sequence[FileId]

    def __contains__(self, inode: int) -> bool:
        at = bisect_left(self.inodes, inode)
        return at < len(self.inodes) and self.inodes[at] == inode


class XattrShelf:
    """Attributes by the number of the file in the mount."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Xattrs] = OrderedDict()
        self._size = 0
        self._listed: deque[Listed] = deque(maxlen=_LISTED_KEPT)

    def listed(self, listed: Listed) -> None:
        """These files were listed: whoever asks for one may soon ask for the others."""
        for start in range(0, len(listed.inodes), _AT_ONCE):
            end = start + _AT_ONCE
            part = Listed(listed.volume, listed.inodes[start:end], listed.files[start:end])
            self._listed.append(part)

    def kept(self, inode: int) -> Xattrs | None:
        """Those at hand."""
        return self._kept.get(inode)

    async def fetched(self, inode: int, volume: AskedVolume, file: FileId) -> Xattrs:
        """Those that are not at hand. Raises GuestError, and what reading the disks raises."""
        together = next((part for part in self._listed if inode in part), None)
        if together is not None:
            self._listed.remove(together)
            # Attributes of so many files may be too many for one answer.
            with contextlib.suppress(GuestError):
                await self._fetch(together)
        kept = self._kept.get(inode)
        if kept is None:
            kept = await volume.run(volume.blocking.xattrs, file)
            self._keep(inode, kept)
        return kept

    async def _fetch(self, listed: Listed) -> None:
        found = await listed.volume.run(listed.volume.blocking.xattrs_of, listed.files)
        for inode, one in zip(listed.inodes, found, strict=True):
            if one is not None:
                self._keep(inode, one)

    def _keep(self, inode: int, found: Xattrs) -> None:
        self._kept[inode] = found or _NONE
        self._size += _size(found)
        while len(self._kept) > _KEPT or (self._size > _BYTES_KEPT and len(self._kept) > 1):
            self._size -= _size(self._kept.popitem(last=False)[1])


def _size(found: Xattrs) -> int:
    return sum(len(name) + len(value) for name, value in found.items())
