"""The file system's operations as pyfuse3 wants them: numbers in, attributes and bytes out.

A thin adapter, and the only place that raises errno. What the tree looks like, what a file holds
and when a listing is refreshed is decided elsewhere. Nothing here waits for a store in the loop.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

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

from backpoint_fusefs import inodes
from backpoint_fusefs.attributes import (
    XATTR_PREFIX,
    Owner,
    attributes_of,
    disk_xattrs,
    point_xattrs,
)
from backpoint_fusefs.catalog_watch import CatalogWatch
from backpoint_fusefs.content import BytesContent
from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.errno_map import errno_of
from backpoint_fusefs.inodes import README, ROOT, take_apart
from backpoint_fusefs.listing import changed_names, changed_vms, moment_of
from backpoint_fusefs.mount_lease import MountLease
from backpoint_fusefs.node import Entry, Node, NodeKind
from backpoint_fusefs.open_file import OpenFile, PrefetchBudget
from backpoint_fusefs.point_folder import PointFolder
from backpoint_fusefs.point_shelf import PointShelf
from backpoint_fusefs.process_mark import process_mark
from backpoint_fusefs.tree import README_TEXT, Tree
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import BackpointError
from backpoint_repo.point_selector import format_time

PROCESS_XATTR: Final = XATTR_PREFIX + b"process"
"""On the root: which process serves the mount, so that `umount` can wait for its end."""
_TOLD_MAX: Final = 1024
_LOG = logging.getLogger("backpoint.mount")

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = Callable[Concatenate["MountOperations", _P], Awaitable[_T]]


@dataclass(frozen=True)
class MountParts:
    """What the operations stand on."""

    watch: CatalogWatch
    shelf: PointShelf
    workers: DecodeWorkers
    budget: PrefetchBudget
    lease: MountLease
    owner: Owner


def _answering(
    method: _Method[_P, _T],
) -> Callable[Concatenate[MountOperations, _P], Coroutine[Any, Any, _T]]:
    """Turns failures of the repository into errno, and says them in the log."""

    @functools.wraps(method)
    async def answered(self: MountOperations, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await method(self, *args, **kwargs)
        except BackpointError as error:
            self.tell(str(error))
            raise FUSEError(errno_of(error)) from error
        except FUSEError:
            raise
        except Exception as error:
            # pyfuse3 ends the mount for all its users on any other exception. What is read here
            # may be damaged or hostile in ways nobody thought of; that costs one request.
            _LOG.exception("%s failed", method.__name__)
            raise FUSEError(errno.EIO) from error

    return answered


class MountOperations(pyfuse3.Operations):
    """Everything is read-only; what changes the tree is refused by the kernel already."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, parts: MountParts) -> None:
        super().__init__()
        self._parts = parts
        self._handles = itertools.count(1)
        self._files: dict[int, OpenFile] = {}
        self._listings: dict[int, list[Entry]] = {}
        self._told: dict[str, None] = {}

    def tell(self, message: str) -> None:
        """Log a failure once, however often the kernel asks again."""
        if message not in self._told:
            self._told[message] = None
            if len(self._told) > _TOLD_MAX:
                del self._told[next(iter(self._told))]
            _LOG.error("%s", message)

    @_answering
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        folder = await self._node(parent_inode)
        if name == b".":
            return self._attributes(folder)
        if name == b"..":
            return self._attributes(await self._node(folder.folder))
        if folder.kind is not NodeKind.FOLDER:
            raise FUSEError(errno.ENOTDIR)
        point = self._tree.point_at(folder.inode)
        if point is not None:
            found = (await self._folder(point)).find(name)
        else:
            found = self._tree.find(folder, name)
            if found is None and folder.growing:
                await self._parts.watch.refresh(self.on_change)
                found = self._tree.find(folder, name)
        if found is None:
            raise FUSEError(errno.ENOENT)
        return self._attributes(found)

    @_answering
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(await self._node(inode))

    @_answering
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT((await self._node(inode)).target)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Numbers are derived, so there is nothing to forget."""

    @_answering
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        folder = await self._node(inode)
        if folder.growing:
            await self._parts.watch.refresh(self.on_change)
        point = self._tree.point_at(inode)
        if point is not None:
            entries = (await self._folder(point)).entries()
        else:
            entries = self._tree.entries(folder)
        handle = next(self._handles)
        self._listings[handle] = entries
        return FileHandleT(handle)

    @_answering
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        entries = self._listings[fh]
        for at in range(start_id, len(entries)):
            name, node = entries[at]
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._attributes(node), at + 1):
                break

    async def releasedir(self, fh: FileHandleT) -> None:
        self._listings.pop(fh, None)

    @_answering
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        handle = next(self._handles)
        self._files[handle] = await self._opened(inode)
        return FileInfo(fh=FileHandleT(handle), direct_io=False, keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        file = self._files[fh]
        try:
            # pyfuse3 takes any buffer, whatever its types say; a view saves a copy.
            return await file.read(off, size)  # type: ignore[return-value]
        except BackpointError as error:
            where = self._place(file, off, size)
            self.tell(f"{where}: {error}")
            raise FUSEError(errno_of(error)) from error
        except Exception as error:
            # As in `_answering`: one request, not the mount.
            _LOG.exception("reading %s failed", self._place(file, off, size))
            raise FUSEError(errno.EIO) from error

    async def release(self, fh: FileHandleT) -> None:
        file = self._files.pop(fh)
        file.close()
        if file.point is not None:
            self._parts.lease.unpin(file.point)

    async def flush(self, fh: FileHandleT) -> None:
        """Nothing is ever written."""

    @_answering
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        data = StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks = sum(point.allocated for point in self._tree.listing.points) // 4096
        data.f_files = len(self._tree.listing.points)
        data.f_namemax = 255
        return data

    @_answering
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        if not name.startswith(XATTR_PREFIX):
            # Asked for security.capability and the like on every access.
            raise FUSEError(errno.ENODATA)
        value = (await self._xattrs(inode)).get(name)
        if value is None:
            raise FUSEError(errno.ENODATA)
        return value

    @_answering
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in await self._xattrs(inode)]

    def on_change(self, before: Tree, after: Tree) -> None:
        """Tell the kernel what it must not believe any longer: new points are seen at once."""
        changed = {InodeT(inodes.VMS), InodeT(inodes.BY_DATE)}
        for vm in changed_vms(before.listing, after.listing):
            folder = inodes.Number(inodes.vm_prefix(vm), inodes.VM_FOLDER).inode
            latest = inodes.Number(inodes.vm_prefix(vm), inodes.VM_LATEST).inode
            changed |= {InodeT(folder), InodeT(latest)}
            for name in changed_names(before.listing, after.listing, vm):
                pyfuse3.invalidate_entry_async(InodeT(folder), FileNameT(name), ignore_enoent=True)
        for inode in changed:
            try:
                pyfuse3.invalidate_inode(inode, attr_only=True)
            except OSError:
                continue  # the kernel does not know it

    @property
    def _tree(self) -> Tree:
        return self._parts.watch.tree

    def _attributes(self, node: Node) -> EntryAttributes:
        return attributes_of(node, self._parts.owner, self._tree.changed)

    async def _node(self, inode: int) -> Node:
        """The node, also where the kernel (or an NFS client) knows its number from long ago."""
        found = self._tree.node(inode)
        point = None if found is not None else self._tree.point_at(inode)
        if point is not None:
            found = (await self._folder(point)).node(take_apart(inode).role)
        if found is None:
            raise FUSEError(errno.ESTALE)
        return found

    async def _folder(self, point: PointSummary) -> PointFolder:
        folder = self._parts.shelf.kept(point.point_id)
        if folder is None:
            folder = await self._parts.workers.run(self._parts.shelf.folder, point.point_id)
            if folder.hidden:
                self.tell(f"{_label(point)}: {folder.hidden} files of this point are not shown")
        return folder

    async def _opened(self, inode: int) -> OpenFile:
        parts = self._parts
        if inode == README:
            return OpenFile(BytesContent(README_TEXT), parts.workers, parts.budget, "README.txt")
        node, point = await self._node(inode), self._tree.point_at(inode)
        if node.kind is not NodeKind.FILE or point is None:
            raise FUSEError(errno.EISDIR)
        folder, role = await self._folder(point), take_apart(inode).role
        content = parts.shelf.content(folder, role)
        label = f"{_label(point)} {folder.name(role)}"
        # Without an await since the content was found: a pin and its file come together.
        parts.lease.pin(point.point_id)
        return OpenFile(content, parts.workers, parts.budget, label, point.point_id)

    async def _xattrs(self, inode: int) -> dict[bytes, bytes]:
        if inode == ROOT:
            return {PROCESS_XATTR: process_mark(os.getpid())}
        point = self._tree.point_at(inode)
        if point is None:
            return {}
        folder, role = await self._folder(point), take_apart(inode).role
        number = folder.disk_number(role)
        if number is not None:
            return disk_xattrs(folder.point, number)
        return point_xattrs(folder.point) if role == inodes.POINT_FOLDER else {}

    def _place(self, file: OpenFile, offset: int, size: int) -> str:
        return f"{file.label} at {offset} (+{size})"


def _label(point: PointSummary) -> str:
    return f"{point.vm} {format_time(moment_of(point.time))}"
