"""A guest's folder that a program lists: page by page, so that the largest takes no memory here."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from pyfuse3 import EntryAttributes

from backpoint_fusefs.guest.guest_volume import Page
from backpoint_fusefs.guest.mounted.guest_places import GuestPlaces, SeenFile
from backpoint_fusefs.guest.mounted.xattr_shelf import Listed, XattrShelf
from backpoint_fusefs.guest.parser_answers import Line as GuestLine
from backpoint_fusefs.realm import Line


class GuestListing:
    """See `FolderListing`. folder: its number."""

    def __init__(self, places: GuestPlaces, shelf: XattrShelf, folder: int, seen: SeenFile) -> None:
        self._places = places
        self._shelf = shelf
        self._folder = folder
        self._seen = seen
        self._rewind()

    async def lines(self, start: int) -> Iterable[Line]:
        """Raises GuestError, and what reading the disks raises."""
        if start < self._first:
            self._rewind()
        while start >= self._first + len(self._lines):
            if not self._more:
                return ()
            await self._turn()
        shown = itertools.islice(
            zip(self._lines, self._inodes, strict=True), start - self._first, None
        )
        numbered = enumerate(shown, start + 1)
        return ((at, line.name, self._attributes(line, inode)) for at, (line, inode) in numbered)

    def _rewind(self) -> None:
        self._first = 0
        self._pages = 0
        self._more = True
        self._lines: list[GuestLine] = []
        self._inodes: list[int] = []
        self._mounts: dict[bytes, EntryAttributes] = {}
        self._ahead: Callable[[], Awaitable[Page]] | None = None

    async def _turn(self) -> None:
        """Go to the next page; the one behind it is read while this one is shown."""
        seen, ahead = self._seen, self._ahead
        self._ahead = None
        volume = seen.volume
        if ahead is None:
            page = await volume.run(volume.blocking.page, seen.file, self._pages)
        else:
            page = await ahead()
        self._first += len(self._lines)
        self._pages += 1
        self._more, self._lines = page.more, page.lines
        if page.more:
            following = partial(volume.blocking.page, seen.file, self._pages)
            self._ahead = volume.start(following)
        files = [line.file for line in page.lines]
        self._inodes = self._places.inodes(seen.point, seen.place, files)
        self._shelf.listed(Listed(volume, self._inodes, files))
        self._mounts = {
            line.name: await self._places.top_attributes(self._folder, seen.point, top)
            for line in page.lines
            if (top := seen.view.crossed(seen.place, line.file)) is not None
        }

    def _attributes(self, line: GuestLine, inode: int) -> EntryAttributes:
        if line.name in self._mounts:
            return self._mounts[line.name]
        if line.found is None:
            return self._places.unreadable_attributes(inode)
        return self._places.attributes_of(inode, self._folder, line.found)
