"""`guest/` itself in the mount, and what is ours in it: explanations, and folders with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pyfuse3 import EntryAttributes

from backpoint_fusefs import inodes
from backpoint_fusefs.attributes import attributes_of
from backpoint_fusefs.content import BytesContent
from backpoint_fusefs.guest.mounted.guest_places import GuestPlaces
from backpoint_fusefs.guest.mounted.guest_view import Extra, Target, TreeTop
from backpoint_fusefs.inodes import Number, take_apart
from backpoint_fusefs.listing import moment_of
from backpoint_fusefs.node import Node, NodeKind
from backpoint_fusefs.open_file import OpenFile
from backpoint_fusefs.point_realm import MountParts, PointRealm
from backpoint_fusefs.realm import Line, NotAFile, NotAFolder, Stale
from backpoint_repo.catalog import PointSummary


class GuestFolderRealm:
    """See `Realm`. Methods also raise GuestError."""

    def __init__(self, parts: MountParts, points: PointRealm, places: GuestPlaces) -> None:
        self._parts = parts
        self._points = points
        self._places = places

    async def attributes(self, inode: int) -> EntryAttributes:
        if _is_top(inode):
            # A file of the point's folder like any other, as far as its stat goes.
            return await self._points.attributes(inode)
        return self._extra_attributes(self._places.point_of(inode), await self._extra(inode))

    async def parent(self, folder: int) -> int:
        role = inodes.POINT_FOLDER if _is_top(folder) else (await self._extra(folder)).folder
        return _inode(self._places.point_of(folder), role)

    async def lookup(self, folder: int, name: bytes) -> EntryAttributes | None:
        if _is_top(folder):
            view = await self._places.view(self._places.point_of(folder))
            target = await view.find(name)
        else:
            target = (await self._folder(folder)).children.get(name)
        return None if target is None else await self._target_attributes(folder, target)

    async def listing(self, folder: int) -> FixedListing:
        if _is_top(folder):
            view = await self._places.view(self._places.point_of(folder))
            targets = await view.all()
        else:
            targets = list((await self._folder(folder)).children.items())
        return FixedListing(
            [(name, await self._target_attributes(folder, target)) for name, target in targets]
        )

    async def target(self, link: int) -> bytes:
        raise Stale  # none of ours is a link

    async def open(self, file: int) -> OpenFile:
        text = None if _is_top(file) else (await self._extra(file)).text
        if text is None:
            raise NotAFile
        parts = self._parts
        return OpenFile(BytesContent(text), parts.workers, parts.budget, "a WHY.txt")

    async def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        return {}

    async def hidden_xattr(self, inode: int, name: bytes) -> bytes | None:
        return None

    async def _folder(self, inode: int) -> Extra:
        extra = await self._extra(inode)
        if extra.text is not None:
            raise NotAFolder
        return extra

    async def _extra(self, inode: int) -> Extra:
        view = await self._places.view(self._places.point_of(inode))
        extra = await view.extra(take_apart(inode).role)
        if extra is None:
            raise Stale
        return extra

    async def _target_attributes(self, folder: int, target: Target) -> EntryAttributes:
        point = self._places.point_of(folder)
        if isinstance(target, TreeTop):
            return await self._places.top_attributes(folder, point, target)
        return self._extra_attributes(point, target)

    def _extra_attributes(self, point: PointSummary, extra: Extra) -> EntryAttributes:
        size = 0 if extra.text is None else len(extra.text)
        node = Node(
            _inode(point, extra.role),
            NodeKind.FOLDER if extra.text is None else NodeKind.FILE,
            moment_of(point.time),
            _inode(point, extra.folder),
            size=size,
            allocated=size,
        )
        return attributes_of(node, self._parts.owner, 0.0)


class FixedListing:
    """See `FolderListing`. A few entries."""

    def __init__(self, entries: Sequence[tuple[bytes, EntryAttributes]]) -> None:
        self._entries = entries

    async def lines(self, start: int) -> Iterable[Line]:
        rest = enumerate(self._entries[start:], start + 1)
        return ((at, name, attributes) for at, (name, attributes) in rest)


def _is_top(inode: int) -> bool:
    return take_apart(inode).role == inodes.GUEST_FOLDER


def _inode(point: PointSummary, role: int) -> int:
    return Number(inodes.point_prefix(point.point_id), role).inode
