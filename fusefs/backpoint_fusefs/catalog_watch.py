"""Keeps the mount's listing of points up to date, without ever holding up the event loop.

Decides when to look: at an interval, and when somebody lists a folder. A listing that takes long is
made rarely, so that looking never takes more than a small share of a core.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import trio

from backpoint_fusefs.listing import Listing
from backpoint_fusefs.tree import LiveChanged, Tree
from backpoint_repo.catalog import Catalog
from backpoint_repo.errors import BackpointError

INTERVAL_S: Final = 10.0
FRESH_S: Final = 1.0
"""How old a listing may be when somebody asks for it."""
_SHARE: Final = 20
"""A listing is kept this many times as long as it took to make."""
_LOG = logging.getLogger("backpoint.mount")


class CatalogWatch:
    """For the event loop only, but for `load`. clock: seconds since 1970. live: see `Tree`."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Callable[[], float] = time.time,
        live: LiveChanged | None = None,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._live = live
        self._busy = trio.Lock()
        self._made_at = 0.0
        self._took_s = 0.0
        self._told: set[str] = set()
        self.tree = Tree(Listing(()), clock(), live)

    def load(self) -> None:
        """Make the first listing. Raises what a store raises."""
        started = time.monotonic()
        self.tree = self._tree_of(Listing(self._catalog.refresh()))
        self._ended(started)

    async def refresh(self, on_change: Callable[[Tree, Tree], None]) -> None:
        """See to it that the listing is fresh; a store that fails leaves the old one.

        on_change gets the tree before and the tree now, where they differ.
        """
        if not self._is_old():
            return
        async with self._busy:
            if not self._is_old():
                return
            started = time.monotonic()
            before = self.tree
            try:
                after = await trio.to_thread.run_sync(self._look, before)
            except BackpointError as error:
                _LOG.warning("cannot look for new points: %s", error)
                after = before
            self._ended(started)
            # Nobody else writes the tree: all changes happen under the lock.
            if after is not before:
                self.tree = after
                on_change(before, after)

    async def run(self, on_change: Callable[[Tree, Tree], None]) -> None:
        """Look again and again, until cancelled."""
        while True:
            await trio.sleep(max(INTERVAL_S, _SHARE * self._took_s))
            await self.refresh(on_change)

    def _is_old(self) -> bool:
        return time.monotonic() - self._made_at > max(FRESH_S, _SHARE * self._took_s)

    def _ended(self, started: float) -> None:
        self._made_at = time.monotonic()
        self._took_s = self._made_at - started
        broken = dict(self._catalog.broken)
        for name in broken.keys() - self._told:
            _LOG.error("a restore point is not shown: %s", broken[name])
        self._told |= broken.keys()

    def _look(self, before: Tree) -> Tree:
        """In a thread: the same tree again where nothing changed."""
        points = self._catalog.refresh()
        old = before.listing
        if len(points) == len(old.points) + len(old.shadowed) and points == old.points:
            return before
        listing = Listing(points)
        for point in listing.shadowed:
            _LOG.error(
                "the point %s of %s is not shown: another has its inode number",
                point.point_id.hex(),
                point.vm,
            )
        return self._tree_of(listing)

    def _tree_of(self, listing: Listing) -> Tree:
        return Tree(listing, self._clock(), self._live)
