"""Where guest files are seen in the mount: numbers to volumes and back, and the views of points.

Decides how many points' guests are kept at hand. What is done with a file is for
`guest_file_realm.py`, what `guest/` itself holds for `guest_view.py`. For the event loop only.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

import trio
from pyfuse3 import EntryAttributes

from backpoint_fusefs import inodes
from backpoint_fusefs.guest.filesystem import FileId, Stat
from backpoint_fusefs.guest.mounted.asked_volume import AskedVolume
from backpoint_fusefs.guest.mounted.guest_attributes import (
    guest_attributes,
    unreadable_attributes,
)
from backpoint_fusefs.guest.mounted.guest_inodes import (
    TreeSlots,
    guest_inode,
    slot_of,
    take_guest_apart,
)
from backpoint_fusefs.guest.mounted.guest_view import GuestView, TreeTop
from backpoint_fusefs.guest.mounted.slot_file import SlotFile, slot_path
from backpoint_fusefs.guest.mounted.tree_key import TreeKey
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.guest.point_guest import PointGuest
from backpoint_fusefs.inodes import Number
from backpoint_fusefs.point_realm import MountParts, PointRealm, point_label
from backpoint_fusefs.realm import Stale
from backpoint_repo.catalog import PointSummary
from backpoint_repo.pin import pin_of

_VIEWS_KEPT: Final = 32
"""Points whose volumes are known; how many processes there are, `parser_pool.py` decides."""
_PARENTS_KEPT: Final = 1 << 16
_END_EVERY_S: Final = 10.0


class SeenFile(NamedTuple):
    """A guest's file in the place where it is seen; place: see `guest_inodes.TreeKey`."""

    point: PointSummary
    view: GuestView
    place: str
    volume: AskedVolume
    file: FileId


class GuestPlaces:
    """Methods raise Stale for numbers of nothing, and what a repository raises."""

    def __init__(self, parts: MountParts, points: PointRealm, pool: ParserPool) -> None:
        self._parts = parts
        self._points = points
        self._pool = pool
        self._slots = TreeSlots(SlotFile(slot_path(parts.shelf.repository_id)))
        self._views: OrderedDict[bytes, GuestView] = OrderedDict()
        self._parents: OrderedDict[int, int] = OrderedDict()

    async def run(self) -> None:
        """End processes that nobody needs, until cancelled."""
        while True:
            await trio.sleep(_END_EVERY_S)
            await trio.to_thread.run_sync(self._pool.end_idle)

    def close(self) -> None:
        """End all processes."""
        self._pool.close()

    def point_of(self, inode: int) -> PointSummary:
        """The point that a `guest/` folder, or something of ours in it, belongs to."""
        point = self._parts.watch.tree.point_at(inode)
        if point is None:
            raise Stale
        return point

    async def view(self, point: PointSummary) -> GuestView:
        """What the point's `guest/` holds."""
        view = self._views.get(point.point_id)
        if view is None:
            folder = await self._points.point_folder(point)
            view = self._views.get(point.point_id)
            if view is None:
                disks = self._parts.shelf.disks(folder)
                view = GuestView(
                    PointGuest(disks, self._pool), point_label(point), pin_of(folder.point)
                )
                self._views[point.point_id] = view
        self._views.move_to_end(point.point_id)
        if len(self._views) > _VIEWS_KEPT:
            self._drop_one()
        return view

    def _drop_one(self) -> None:
        """The view that was used longest ago, of those that nobody has a file open in."""
        oldest = next((key for key, view in self._views.items() if not view.open_files), None)
        if oldest is not None:
            self._views.pop(oldest).close()

    async def seen(self, inode: int) -> SeenFile:
        """The guest's file with this number."""
        apart = take_guest_apart(inode)
        key = None if apart is None else self._slots.key(apart[0])
        if apart is None or key is None:
            raise Stale
        point = self.point_of(guest_folder_inode(key.point_id))
        if point.point_id != key.point_id:
            raise Stale
        view = await self.view(point)
        volume = await view.volume(key.place)
        if volume is None:
            raise Stale
        return SeenFile(point, view, key.place, volume, FileId(key.tree, apart[1]))

    def inode(self, point: PointSummary, place: str, file: FileId) -> int:
        """The number of a guest's file in a place."""
        return guest_inode(self._slot(point, place, file.tree), file.ino)

    def inodes(self, point: PointSummary, place: str, files: Sequence[FileId]) -> list[int]:
        """Of many files at once."""
        trees = {file.tree for file in files}
        slots = {tree: self._slot(point, place, tree) for tree in trees}
        return [guest_inode(slots[tree], ino) for tree, ino in files]

    def _slot(self, point: PointSummary, place: str, tree: int) -> int:
        return self._slots.slot(TreeKey(point.point_id, place, tree))

    async def parent(self, inode: int) -> int:
        """Of the folder that a guest's folder lies in, whether or not it was seen there."""
        found = self._parents.get(inode)
        if found is None:
            seen = await self.seen(inode)
            found = await self._parent_of(seen.point, seen.view, seen.place, seen.file)
        return found

    async def _parent_of(
        self, point: PointSummary, view: GuestView, place: str, file: FileId
    ) -> int:
        above = await view.above(place, file)
        if isinstance(above, int):
            return Number(inodes.point_prefix(point.point_id), above).inode
        volume = await view.volume(above.place)
        found = None if volume is None else await volume.run(volume.blocking.parent, above.file)
        if found is None:
            raise Stale
        return self.inode(point, above.place, found)

    def attributes(
        self, folder: int, point: PointSummary, place: str, found: Stat
    ) -> EntryAttributes:
        """Of a file in a folder. Does not wait."""
        return self.attributes_of(self.inode(point, place, found.file), folder, found)

    def attributes_of(self, inode: int, folder: int, found: Stat) -> EntryAttributes:
        """The same, where the file's number is known."""
        if stat.S_ISDIR(found.mode):
            self._parents[inode] = folder
            if len(self._parents) > _PARENTS_KEPT:
                self._parents.popitem(last=False)
        return self.plain_attributes(inode, found)

    def plain_attributes(self, inode: int, found: Stat) -> EntryAttributes:
        """The same, wherever it lies."""
        return guest_attributes(inode, self._slots.generation(slot_of(inode)), found)

    def unreadable_attributes(self, inode: int) -> EntryAttributes:
        """Of a file that cannot be read."""
        return unreadable_attributes(inode, self._slots.generation(slot_of(inode)))

    async def top_attributes(
        self, folder: int, point: PointSummary, top: TreeTop
    ) -> EntryAttributes:
        """Of the beginning of a tree, as it is seen in a folder. Raises GuestError."""
        found = await top.volume.run(top.volume.blocking.stat, top.root)
        return self.attributes(folder, point, top.place, found)


def guest_folder_inode(point_id: bytes) -> int:
    """Of a point's `guest/`."""
    return Number(inodes.point_prefix(point_id), inodes.GUEST_FOLDER).inode
