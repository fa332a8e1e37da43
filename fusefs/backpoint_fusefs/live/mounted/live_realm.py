"""`live/` and all below it: sessions as folders that can be written to.

Turns numbers and names into nodes of sessions, and what programs do into changes of them. Which
sessions there are and when they are opened is for `live_sessions.py`; errno is for
`operations.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from pyfuse3 import EntryAttributes

from backpoint_fusefs.attributes import attributes_of
from backpoint_fusefs.guest.mounted.guest_folder_realm import FixedListing
from backpoint_fusefs.inodes import LIVE, ROOT
from backpoint_fusefs.live.mounted.held_session import HeldSession
from backpoint_fusefs.live.mounted.live_attributes import (
    folder_attributes,
    live_attributes,
    session_xattrs,
)
from backpoint_fusefs.live.mounted.live_inodes import UNKNOWN_NODE, is_live, take_live_apart
from backpoint_fusefs.live.mounted.live_listing import LiveListing
from backpoint_fusefs.live.mounted.live_open_file import LiveContent, LiveDiskContent, LiveOpenFile
from backpoint_fusefs.live.mounted.live_sessions import LiveSessions
from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeType
from backpoint_fusefs.point_realm import MountParts
from backpoint_fusefs.realm import (
    Changes,
    FolderListing,
    Maker,
    NotAFile,
    NotAFolder,
    OtherVolume,
    ReadOnly,
    Stale,
)
from backpoint_repo.image_reader import ImageReader

T = TypeVar("T")
_TOPS: Final = (ROOT_NODE, UNKNOWN_NODE)
_WITH_CONTENT: Final = (NodeType.FILE, NodeType.DISK)
_PERMISSIONS: Final = 0o7777


class LiveRealm:
    """See `WritableRealm`. Sessions themselves are neither made nor removed here (ReadOnly)."""

    def __init__(self, parts: MountParts, sessions: LiveSessions) -> None:
        self._parts = parts
        self._sessions = sessions

    async def attributes(self, inode: int) -> EntryAttributes:
        if inode == LIVE:
            return self._own_attributes()
        number, node = take_live_apart(inode)
        if node in _TOPS and self._sessions.held_now(number) is None:
            # Looking at the list of sessions takes none of them.
            shown = await self._sessions.by_number(number)
            if shown.inode != inode:
                raise Stale
            return folder_attributes(inode, shown.created)
        held = await self._sessions.held(number)
        return await _attributes(held, held.node(node))

    async def parent(self, folder: int) -> int:
        if folder == LIVE:
            return ROOT
        number, node = take_live_apart(folder)
        if node in _TOPS:
            return LIVE
        held = await self._sessions.held(number)
        return held.inode(held.node(node).parent)

    async def lookup(self, folder: int, name: bytes) -> EntryAttributes | None:
        if folder == LIVE:
            shown = await self._sessions.find(name)
            return None if shown is None else await self.attributes(shown.inode)
        held, node = await self._folder(folder)
        found = held.names.child(node.number, name)
        return None if found is None else await _attributes(held, found)

    async def listing(self, folder: int) -> FolderListing:
        if folder == LIVE:
            shown = await self._sessions.shown()
            return FixedListing([(it.name, await self.attributes(it.inode)) for it in shown])
        held, node = await self._folder(folder)
        return LiveListing(held, node.number)

    async def target(self, link: int) -> bytes:
        _, node = await self._place(link)
        return node.target

    async def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        if inode == LIVE:
            return {}
        number, node = take_live_apart(inode)
        if node not in _TOPS:
            return {}
        held = self._sessions.held_now(number)
        shown = None if held else await self._sessions.by_number(number)
        record = held.session.record if held else shown.record if shown else None
        return session_xattrs(record) if record else {}

    async def hidden_xattr(self, inode: int, name: bytes) -> bytes | None:
        return None

    async def open(self, file: int) -> LiveOpenFile:
        held, node = await self._place(file)
        if node.type not in _WITH_CONTENT:
            raise NotAFile
        content = await held.open(node.number)
        shown = LiveContent(content)
        if node.disk is not None:
            shown = LiveDiskContent(content, partial(self._base, held, node.disk))
        budget = self._parts.budget
        return LiveOpenFile(held, node, content, shown, self._sessions.workers, budget)

    async def open_writable(self, file: int, *, truncate: bool) -> LiveOpenFile:
        held, _ = await self._place(file)
        if held.session.record.frozen:
            raise ReadOnly
        opened = await self.open(file)
        if truncate:
            try:
                await opened.resize(0)
            except BaseException:
                opened.close()
                await opened.closed()
                raise
        return opened

    async def create(self, folder: int, name: bytes, maker: Maker) -> EntryAttributes:
        return await self._make(folder, name, NodeType.FILE, maker)

    async def make_folder(self, folder: int, name: bytes, maker: Maker) -> EntryAttributes:
        return await self._make(folder, name, NodeType.FOLDER, maker)

    async def make_link(
        self, folder: int, name: bytes, target: bytes, maker: Maker
    ) -> EntryAttributes:
        return await self._make(folder, name, NodeType.LINK, maker, target)

    async def unlink(self, folder: int, name: bytes) -> None:
        held, node = await self._changing(folder)
        await held.unlinked(await held.run(held.names.unlink, node.number, name))

    async def remove_folder(self, folder: int, name: bytes) -> None:
        held, node = await self._changing(folder)
        await held.run(held.names.remove_folder, node.number, name)

    async def rename(
        self, folder: int, name: bytes, new_folder: int, new_name: bytes, *, replace: bool
    ) -> None:
        held, node = await self._changing(folder)
        if not is_live(new_folder):
            raise ReadOnly
        if take_live_apart(new_folder).session != held.number:
            raise OtherVolume
        new_number = take_live_apart(new_folder).node
        rename: Callable[[], LiveNode | None] = partial(
            held.names.rename, node.number, name, new_number, new_name, replace=replace
        )
        replaced = await held.run(rename)
        if replaced is not None:
            await held.unlinked(replaced)

    async def change(self, inode: int, changes: Changes) -> EntryAttributes:
        if inode == LIVE:
            raise ReadOnly
        held, node = await self._place(inode)
        if changes.size is not None:
            if node.type not in _WITH_CONTENT:
                raise NotAFile
            await held.run((await held.file(node.number)).resize, changes.size)
            held.written(node, closing=True)
            node = held.node(node.number)
        wanted = _changed(node, changes)
        if wanted is not node:
            await held.run(held.names.change, wanted)
        return await _attributes(held, held.node(node.number))

    async def room(self) -> tuple[int, int, int]:
        return await self._sessions.room()

    async def _make(
        self, folder: int, name: bytes, kind: NodeType, maker: Maker, target: bytes = b""
    ) -> EntryAttributes:
        held, node = await self._changing(folder)
        now, mode = time.time_ns(), maker.mode & _PERMISSIONS
        made = LiveNode(
            0, kind, node.number, name, mode, maker.uid, maker.gid, now, now, target=target
        )
        return await _attributes(held, await held.run(held.names.create, made))

    def _base(self, held: HeldSession, disk: int) -> ImageReader:
        """On a worker."""
        return self._sessions.open_base(held.session.record.point_id, disk)

    def _own_attributes(self) -> EntryAttributes:
        tree = self._parts.watch.tree
        node = tree.node(LIVE)
        assert node is not None, "a tree without live/"
        return attributes_of(node, self._parts.owner, tree.changed)

    async def _place(self, inode: int) -> tuple[HeldSession, LiveNode]:
        if inode == LIVE:
            raise NotAFile
        number, node = take_live_apart(inode)
        held = await self._sessions.held(number)
        return held, held.node(node)

    async def _folder(self, inode: int) -> tuple[HeldSession, LiveNode]:
        held, node = await self._place(inode)
        if node.type is not NodeType.FOLDER:
            raise NotAFolder
        return held, node

    async def _changing(self, folder: int) -> tuple[HeldSession, LiveNode]:
        """A folder in which a name is to change."""
        if folder == LIVE:
            raise ReadOnly
        return await self._folder(folder)


async def _attributes(held: HeldSession, node: LiveNode) -> EntryAttributes:
    extent = await held.extent(node)
    # The newest: it may have been written to, or renamed, while its content was opened.
    return live_attributes(held.inode(node.number), held.node(node.number), extent)


def _changed(node: LiveNode, changes: Changes) -> LiveNode:
    """The same node where nothing is to change."""
    wanted = {
        name: value
        for name in ("mode", "uid", "gid", "mtime_ns")
        if (value := getattr(changes, name)) is not None
    }
    return replace(node, ctime_ns=time.time_ns(), **wanted) if wanted else node
