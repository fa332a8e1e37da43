"""The file system's operations as pyfuse3 wants them: numbers in, attributes and bytes out.

A thin adapter, and the only place that raises errno. What is where is decided by the realms;
nothing here waits for a store in the loop.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
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

from backpoint_fusefs.attributes import XATTR_PREFIX
from backpoint_fusefs.catalog_watch import CatalogWatch
from backpoint_fusefs.errno_map import errno_of
from backpoint_fusefs.realm import FolderListing, NotAFile, NotAFolder, Opened, Realm, Stale
from backpoint_fusefs.told_once import ToldOnce
from backpoint_repo.errors import BackpointError

_REFUSALS: Final = {
    Stale: errno.ESTALE,
    NotAFolder: errno.ENOTDIR,
    NotAFile: errno.EISDIR,
}
_LOG = logging.getLogger("backpoint.mount")

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = Callable[Concatenate["MountOperations", _P], Awaitable[_T]]


def _answering(
    method: _Method[_P, _T],
) -> Callable[Concatenate[MountOperations, _P], Coroutine[Any, Any, _T]]:
    """Turns failures of the repository and of guests into errno, and says them in the log."""

    @functools.wraps(method)
    async def answered(self: MountOperations, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await method(self, *args, **kwargs)
        except BackpointError as error:
            self.tell(str(error))
            raise FUSEError(errno_of(error)) from error
        except (Stale, NotAFolder, NotAFile) as error:
            raise FUSEError(_REFUSALS[type(error)]) from error
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

    def __init__(
        self, realm_of: Callable[[int], Realm], watch: CatalogWatch, tell: ToldOnce
    ) -> None:
        """realm_of: whose an inode number is."""
        super().__init__()
        self._realm = realm_of
        self._watch = watch
        self.tell = tell
        self._handles = itertools.count(1)
        self._files: dict[int, Opened] = {}
        self._listings: dict[int, FolderListing] = {}

    @_answering
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

    @_answering
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return await self._realm(inode).attributes(inode)

    @_answering
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await self._realm(inode).target(inode))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Numbers are derived, so there is nothing to forget."""

    @_answering
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        listing = await self._realm(inode).listing(inode)
        handle = next(self._handles)
        self._listings[handle] = listing
        return FileHandleT(handle)

    @_answering
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

    @_answering
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        file = await self._realm(inode).open(inode)
        handle = next(self._handles)
        self._files[handle] = file
        return FileInfo(fh=FileHandleT(handle), direct_io=False, keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        file = self._files[fh]
        try:
            # pyfuse3 takes any buffer, whatever its types say; a view saves a copy.
            return await file.read(off, size)  # type: ignore[return-value]
        except BackpointError as error:
            self.tell(f"{file.label} at {off} (+{size}): {error}")
            raise FUSEError(errno_of(error)) from error
        except Exception as error:
            # As in `_answering`: one request, not the mount.
            _LOG.exception("reading %s at %d (+%d) failed", file.label, off, size)
            raise FUSEError(errno.EIO) from error

    async def release(self, fh: FileHandleT) -> None:
        self._files.pop(fh).close()

    async def flush(self, fh: FileHandleT) -> None:
        """Nothing is ever written."""

    @_answering
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        data = StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks = sum(point.allocated for point in self._watch.tree.listing.points) // 4096
        data.f_files = len(self._watch.tree.listing.points)
        data.f_namemax = 255
        return data

    @_answering
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        realm, value = self._realm(inode), None
        if name.startswith(XATTR_PREFIX):
            value = await realm.hidden_xattr(inode, name)
        if value is None:
            value = (await realm.xattrs(inode)).get(name)
        if value is None:
            raise FUSEError(errno.ENODATA)
        return value

    @_answering
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in await self._realm(inode).xattrs(inode)]
