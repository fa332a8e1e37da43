"""The guests' own files in the mount: numbers to volumes, and what `guest/` itself holds.

Decides how many points' guests are kept open. A folder of a guest is read page by page, so that the
largest takes no memory here. errno is for `operations.py`.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio
from pyfuse3 import EntryAttributes

from backpoint_fusefs import inodes
from backpoint_fusefs.attributes import XATTR_PREFIX, attributes_of
from backpoint_fusefs.content import BytesContent
from backpoint_fusefs.guest.asked_volume import AskedVolume
from backpoint_fusefs.guest.filesystem import FileId, Stat
from backpoint_fusefs.guest.guest_attributes import guest_attributes, unreadable_attributes
from backpoint_fusefs.guest.guest_file import DecodedFile, describe_file, mapped_content
from backpoint_fusefs.guest.guest_inodes import (
    TreeKey,
    TreeSlots,
    guest_inode,
    is_guest,
    take_guest_apart,
)
from backpoint_fusefs.guest.guest_view import Extra, GuestView, Target, TreeTop
from backpoint_fusefs.guest.guest_volume import Line
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.guest.point_guest import PointGuest
from backpoint_fusefs.guest.xattr_shelf import Listed, XattrShelf
from backpoint_fusefs.inodes import Number, take_apart
from backpoint_fusefs.listing import moment_of
from backpoint_fusefs.node import Node, NodeKind
from backpoint_fusefs.open_file import OpenFile
from backpoint_fusefs.point_realm import MountParts, PointRealm, point_label
from backpoint_fusefs.realm import FolderListing, NotAFile, NotAFolder, Opened, Stale
from backpoint_repo.catalog import PointSummary

_VIEWS_KEPT: Final = 32
"""Points whose volumes are known; processes are bounded elsewhere."""
_PARENTS_KEPT: Final = 1 << 16
_END_EVERY_S: Final = 10.0


class _File(NamedTuple):
    """A guest's file in the place where it is seen."""

    point: PointSummary
    view: GuestView
    place: str
    volume: AskedVolume
    file: FileId


class GuestRealm:
    """See `Realm`."""

    def __init__(self, parts: MountParts, points: PointRealm, pool: ParserPool) -> None:
        self._parts = parts
        self._points = points
        self._pool = pool
        self._slots = TreeSlots()
        self._views: OrderedDict[bytes, GuestView] = OrderedDict()
        self._parents: OrderedDict[int, int] = OrderedDict()
        self._xattrs = XattrShelf()

    async def run(self) -> None:
        """End processes that nobody needs, until cancelled."""
        while True:
            await trio.sleep(_END_EVERY_S)
            await trio.to_thread.run_sync(self._pool.end_idle)

    async def attributes(self, inode: int) -> EntryAttributes:
        if take_guest_apart(inode) is None:
            return await self._own_attributes(inode)
        one = await self._file(inode)
        return guest_attributes(inode, await one.volume.run(one.volume.blocking.stat, one.file))

    async def parent(self, folder: int) -> EntryAttributes:
        if take_guest_apart(folder) is None:
            point = self._point_of(folder)
            role = inodes.POINT_FOLDER
            if take_apart(folder).role != inodes.GUEST_FOLDER:
                extra = await (await self._view(point)).extra(take_apart(folder).role)
                role = inodes.GUEST_FOLDER if extra is None else extra.folder
            inode = _own_inode(point, role)
        else:
            known = self._parents.get(folder)
            if known is None:
                raise Stale
            inode = known
        return await (self if is_guest(inode) else self._points).attributes(inode)

    async def lookup(self, folder: int, name: bytes) -> EntryAttributes | None:
        if take_guest_apart(folder) is None:
            target = await self._own_child(folder, name)
            return None if target is None else await self._target_attributes(folder, target)
        one = await self._file(folder)
        found = await one.volume.run(one.volume.blocking.lookup, one.file, name)
        if found is None:
            return None
        covering = one.view.crossed(one.place, found.file)
        if covering is not None:
            return await self._target_attributes(folder, covering)
        return self._child(folder, one, found)

    async def listing(self, folder: int) -> FolderListing:
        if take_guest_apart(folder) is None:
            entries = [
                (name, await self._target_attributes(folder, target))
                for name, target in await self._own_children(folder)
            ]
            return _FixedListing(entries)
        return _GuestListing(self, folder, await self._file(folder))

    async def target(self, link: int) -> bytes:
        one = await self._file(link)
        return await one.volume.run(one.volume.blocking.readlink, one.file)

    async def open(self, file: int) -> Opened:
        parts = self._parts
        if take_guest_apart(file) is None:
            extra = await self._extra(file)
            if extra is None or extra.text is None:
                raise NotAFile
            return OpenFile(BytesContent(extra.text), parts.workers, parts.budget, "WHY.txt")
        one = await self._file(file)
        described = await one.volume.run(describe_file, one.volume.blocking, one.file)
        if described is None:
            raise NotAFile
        label = f"{one.view.label} guest/{one.place} file {one.file.ino}"
        # Without an await from here on: a pin and its file come together.
        unpin = parts.lease.pinned(one.point.point_id)
        if described.decoded:
            return DecodedFile(one.volume, described, parts.workers, label, unpin)
        content = mapped_content(one.volume.blocking, described)
        return OpenFile(content, parts.workers, parts.budget, label, unpin)

    async def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        if take_guest_apart(inode) is None:
            return {}
        one = await self._file(inode)
        return await self._xattrs.xattrs(inode, one.volume, one.file)

    async def hidden_xattr(self, inode: int, name: bytes) -> bytes | None:
        """Of a volume's top folder: what is known of the volume."""
        if take_guest_apart(inode) is None:
            return None
        one = await self._file(inode)
        volume = one.view.facts(one.place)
        if volume is None or one.file != one.volume.blocking.root():
            return None
        facts = {
            "label": volume.label,
            "uuid": volume.uuid,
            "filesystem": volume.kind,
            "size": str(volume.size),
            "partition": volume.partition,
            "partition_label": volume.partition_label,
            "recovery": one.volume.blocking.facts().recovery,
        }
        value = facts.get(name.removeprefix(XATTR_PREFIX).decode(errors="replace"))
        return value.encode("utf-8", "backslashreplace") if value else None

    def close(self) -> None:
        """End all processes."""
        self._pool.close()

    def listed(self, one: _File, lines: Sequence[Line]) -> None:
        """A page of a folder was read."""
        key = TreeKey(one.point.point_id, one.place, one.file.tree)
        slot = self._slots.slot(key)
        files = [line.file for line in lines if line.file.tree == one.file.tree]
        numbers = [guest_inode(slot, file.ino) for file in files]
        self._xattrs.listed(Listed(one.volume, numbers, files))

    def child_attributes(self, folder: int, one: _File, line: Line) -> EntryAttributes:
        """Of an entry in a listing. Does not wait."""
        if line.found is None:
            slot = self._slots.slot(TreeKey(one.point.point_id, one.place, line.file.tree))
            return unreadable_attributes(guest_inode(slot, line.file.ino))
        return self._child(folder, one, line.found)

    async def crossed_attributes(self, folder: int, top: TreeTop) -> EntryAttributes:
        """Of a folder that another volume is mounted on."""
        return await self._target_attributes(folder, top)

    def _child(self, folder: int, one: _File, found: Stat) -> EntryAttributes:
        slot = self._slots.slot(TreeKey(one.point.point_id, one.place, found.tree))
        inode = guest_inode(slot, found.ino)
        self._remember_parent(inode, folder, found)
        return guest_attributes(inode, found)

    def _remember_parent(self, inode: int, folder: int, found: Stat) -> None:
        if found.mode & 0o170000 != 0o040000:
            return
        self._parents[inode] = folder
        if len(self._parents) > _PARENTS_KEPT:
            self._parents.popitem(last=False)

    async def _target_attributes(self, folder: int, target: Target) -> EntryAttributes:
        if isinstance(target, Extra):
            point = self._point_of(folder)
            return self._extra_attributes(point, target)
        point_id = self._point_id_of(folder)
        found = await target.volume.run(target.volume.blocking.stat, target.root)
        slot = self._slots.slot(TreeKey(point_id, target.place, found.tree))
        inode = guest_inode(slot, found.ino)
        self._remember_parent(inode, folder, found)
        return guest_attributes(inode, found)

    async def _own_attributes(self, inode: int) -> EntryAttributes:
        point = self._point_of(inode)
        if take_apart(inode).role == inodes.GUEST_FOLDER:
            return await self._points.attributes(inode)
        extra = await self._extra(inode)
        if extra is None:
            raise Stale
        return self._extra_attributes(point, extra)

    def _extra_attributes(self, point: PointSummary, extra: Extra) -> EntryAttributes:
        size = 0 if extra.text is None else len(extra.text)
        node = Node(
            _own_inode(point, extra.role),
            NodeKind.FOLDER if extra.text is None else NodeKind.FILE,
            moment_of(point.time),
            _own_inode(point, extra.folder),
            size=size,
            allocated=size,
        )
        return attributes_of(node, self._parts.owner, 0.0)

    async def _own_child(self, folder: int, name: bytes) -> Target | None:
        if take_apart(folder).role == inodes.GUEST_FOLDER:
            return await (await self._view(self._point_of(folder))).find(name)
        return dict(await self._own_children(folder)).get(name)

    async def _own_children(self, folder: int) -> list[tuple[bytes, Target]]:
        if take_apart(folder).role == inodes.GUEST_FOLDER:
            return await (await self._view(self._point_of(folder))).all()
        extra = await self._extra(folder)
        if extra is None or extra.text is not None:
            raise NotAFolder
        return list(extra.children.items())

    async def _extra(self, inode: int) -> Extra | None:
        view = await self._view(self._point_of(inode))
        return await view.extra(take_apart(inode).role)

    async def _file(self, inode: int) -> _File:
        apart = take_guest_apart(inode)
        key = None if apart is None else self._slots.key(apart[0])
        if apart is None or key is None:
            raise Stale
        point = self._point_by_id(key.point_id)
        view = await self._view(point)
        volume = await view.volume(key.place)
        if volume is None:
            raise Stale
        return _File(point, view, key.place, volume, FileId(key.tree, apart[1]))

    async def _view(self, point: PointSummary) -> GuestView:
        view = self._views.get(point.point_id)
        if view is None:
            folder = await self._points.point_folder(point)
            view = self._views.get(point.point_id)
            if view is None:
                disks = self._parts.shelf.disks(folder)
                view = GuestView(PointGuest(disks, self._pool), point_label(point))
                self._views[point.point_id] = view
        self._views.move_to_end(point.point_id)
        while len(self._views) > _VIEWS_KEPT:
            self._views.popitem(last=False)[1].close()
        return view

    def _point_id_of(self, inode: int) -> bytes:
        apart = take_guest_apart(inode)
        if apart is None:
            return self._point_of(inode).point_id
        key = self._slots.key(apart[0])
        if key is None:
            raise Stale
        return key.point_id

    def _point_of(self, inode: int) -> PointSummary:
        """By the number of `guest/` or of one of our own things in it."""
        point = self._parts.watch.tree.point_at(inode)
        if point is None:
            raise Stale
        return point

    def _point_by_id(self, point_id: bytes) -> PointSummary:
        return self._point_of(Number(inodes.point_prefix(point_id), inodes.GUEST_FOLDER).inode)


class _FixedListing:
    """A short folder of ours."""

    def __init__(self, entries: list[tuple[bytes, EntryAttributes]]) -> None:
        self._entries = entries

    async def lines(self, start: int) -> Iterable[tuple[bytes, EntryAttributes]]:
        return self._entries[start:]


class _GuestListing:
    """A guest's folder; the page that is being read is kept."""

    def __init__(self, realm: GuestRealm, folder: int, one: _File) -> None:
        self._realm = realm
        self._folder = folder
        self._one = one
        self._first = 0
        self._number = 0
        self._more = True
        self._lines: list[Line] = []
        self._covered: dict[bytes, EntryAttributes] = {}

    async def lines(self, start: int) -> Iterable[tuple[bytes, EntryAttributes]]:
        while True:
            if start < self._first:
                self._first, self._number, self._more, self._lines = 0, 0, True, []
            if start < self._first + len(self._lines):
                break
            if not self._more:
                return ()
            await self._turn()
        shown = itertools.islice(self._lines, start - self._first, None)
        covered = self._covered
        return ((line.name, covered.get(line.name) or self._attributes(line)) for line in shown)

    async def _turn(self) -> None:
        """Go to the next page."""
        volume = self._one.volume
        page = await volume.run(volume.blocking.page, self._one.file, self._number)
        self._first += len(self._lines)
        self._number += 1
        self._more, self._lines = page.more, page.lines
        self._realm.listed(self._one, page.lines)
        self._covered = {
            line.name: await self._realm.crossed_attributes(self._folder, top)
            for line in page.lines
            if (top := self._one.view.crossed(self._one.place, line.file)) is not None
        }

    def _attributes(self, line: Line) -> EntryAttributes:
        return self._realm.child_attributes(self._folder, self._one, line)


def _own_inode(point: PointSummary, role: int) -> int:
    return Number(inodes.point_prefix(point.point_id), role).inode
