"""The file system's operations as pyfuse3 wants them: numbers in, attributes and bytes out.

A thin adapter. What is where is decided by the realms; nothing here waits for a store in the loop.
What changes something is in `changing_operations.py`.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Final

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
    StatvfsData,
    XAttrNameT,
)

from backpoint_fusefs.answering import answering, answering_change, fuse_error
from backpoint_fusefs.attributes import XATTR_PREFIX
from backpoint_fusefs.catalog_watch import CatalogWatch
from backpoint_fusefs.changing_operations import ChangingOperations
from backpoint_fusefs.inodes import LIVE
from backpoint_fusefs.realm import FolderListing, Opened, Realm, WritableRealm
from backpoint_fusefs.told_once import ToldOnce

_BLOCK: Final = 4096


class MountOperations(ChangingOperations):
    """Without sessions the kernel refuses all changes already."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        realm_of: Callable[[int], Realm],
        writable_of: Callable[[int], WritableRealm | None],
        watch: CatalogWatch,
        tell: ToldOnce,
    ) -> None:
        """realm_of: whose an inode number is. writable_of: see `ChangingOperations`."""
        super().__init__(writable_of, tell)
        self._realm = realm_of
        self._watch = watch
        self._handles = itertools.count(1)
        self._files: dict[int, Opened] = {}
        self._listings: dict[int, FolderListing] = {}

    @answering
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        realm = self._realm(parent_inode)
        if name == b".":
            return await realm.attributes(parent_inode)
        if name == b"..":
            parent = await realm.parent(parent_inode)
            return await self._realm(parent).attributes(parent)
        found = await realm.lookup(parent_inode, name)
        if found is None:
            raise FUSEError(errno.ENOENT)
        return found

    @answering
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return await self._realm(inode).attributes(inode)

    @answering
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await self._realm(inode).target(inode))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Numbers are derived, so there is nothing to forget."""

    @answering
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        listing = await self._realm(inode).listing(inode)
        handle = next(self._handles)
        self._listings[handle] = listing
        return FileHandleT(handle)

    @answering
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        listing, at = self._listings[fh], start_id
        while True:
            before = at
            for position, name, attributes in await listing.lines(at):
                if not pyfuse3.readdir_reply(token, FileNameT(name), attributes, position):
                    return
                at = position
            if at == before:
                return

    async def releasedir(self, fh: FileHandleT) -> None:
        self._listings.pop(fh, None)

    @answering_change
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        to_write = flags & (os.O_ACCMODE | os.O_TRUNC) != os.O_RDONLY
        live = self._writable_of(inode)
        if to_write:
            truncate = bool(flags & os.O_TRUNC)
            file = await self._writable(inode).open_writable(inode, truncate=truncate)
            return self._register_written(file)
        if live is not None:
            return self._register_written(await live.open(inode))
        return self._register(await self._realm(inode).open(inode))

    def _register(self, file: Opened) -> FileInfo:
        handle = next(self._handles)
        self._files[handle] = file
        return FileInfo(fh=FileHandleT(handle), direct_io=False, keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        file = self._files[fh]
        try:
            # pyfuse3 takes any buffer, whatever its types say; a view saves a copy.
            return await file.read(off, size)  # type: ignore[return-value]
        except Exception as error:
            raise fuse_error(error, f"{file.label} at {off} (+{size})", self.tell) from error

    @answering_change
    async def release(self, fh: FileHandleT) -> None:
        self._files.pop(fh).close()
        written = self._written.pop(fh, None)
        if written is not None:
            await written.closed()

    @answering
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_files = len(self._watch.tree.listing.points)
        data.f_namemax = 255
        live = self._writable_of(LIVE)
        if live is None:
            allocated = sum(point.allocated for point in self._watch.tree.listing.points)
            data.f_blocks = allocated // _BLOCK
        else:
            # The kernel does not say where it was asked, and only sessions take up room.
            size, free, available = await live.room()
            data.f_blocks, data.f_bfree = size // _BLOCK, free // _BLOCK
            data.f_bavail = available // _BLOCK
        return data

    @answering
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        realm, value = self._realm(inode), None
        if name.startswith(XATTR_PREFIX):
            value = await realm.hidden_xattr(inode, name)
        if value is None:
            value = (await realm.xattrs(inode)).get(name)
        if value is None:
            raise FUSEError(errno.ENODATA)
        return value

    @answering
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in await self._realm(inode).xattrs(inode)]
