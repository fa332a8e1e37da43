"""A session's folder that a program lists: positions are node numbers, so that none is passed over
where files come and go between two pages, as network clients list."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Final

from backpoint_fusefs.live.mounted.held_session import HeldSession
from backpoint_fusefs.live.mounted.live_attributes import live_attributes
from backpoint_fusefs.live.node_tree import LiveNode
from backpoint_fusefs.realm import Line

_PAGE: Final = 256
"""Entries whose attributes are made at once."""


class LiveListing:
    """See `FolderListing`."""

    def __init__(self, held: HeldSession, folder: int) -> None:
        self._held = held
        self._folder = folder
        self._numbers: list[int] = []

    async def lines(self, start: int) -> Iterable[Line]:
        """Raises Stale, and what opening a file raises."""
        if not self._numbers or start == 0:
            self._numbers = [node.number for node in self._held.names.children(self._folder)]
        first = bisect.bisect_right(self._numbers, start)
        while first < len(self._numbers):
            page = self._numbers[first : first + _PAGE]
            lines = [line for number in page if (line := await self._line(number)) is not None]
            if lines:
                return lines
            first += _PAGE
        return ()

    async def _line(self, number: int) -> Line | None:
        """None where it is no longer in the folder."""
        node = self._there(number)
        if node is None:
            return None
        extent = await self._held.extent(node)
        # It may have gone while its content was opened: what is told to be there stays in the
        # kernel's memory for a while.
        if (node := self._there(number)) is None:
            return None
        return number, node.name, live_attributes(self._held.inode(number), node, extent)

    def _there(self, number: int) -> LiveNode | None:
        node = self._held.names.node(number)
        return node if node is not None and node.parent == self._folder else None
