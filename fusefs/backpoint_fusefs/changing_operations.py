"""The operations that change something, as pyfuse3 wants them: only live sessions can be changed.

A thin adapter; everything else answers EROFS. Nothing here waits for a disk in the loop.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
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
    ModeT,
    RequestContext,
    SetattrFields,
    XAttrNameT,
)

from backpoint_fusefs.answering import answering, answering_change
from backpoint_fusefs.inodes import LIVE
from backpoint_fusefs.realm import Changes, Maker, Opened, WritableOpened, WritableRealm
from backpoint_fusefs.told_once import ToldOnce

_WRITE: Final = 2
"""As access(2) asks for it."""


class ChangingOperations(pyfuse3.Operations):
    """Names and attributes are durable when an operation returns, content after fsync."""

    def __init__(self, writable_of: Callable[[int], WritableRealm | None], tell: ToldOnce) -> None:
        """writable_of: whose an inode number is, None where nothing can be changed."""
        super().__init__()
        self._writable_of = writable_of
        self.tell = tell
        self._written: dict[int, WritableOpened] = {}

    def _writable(self, inode: int) -> WritableRealm:
        realm = self._writable_of(inode)
        if realm is None:
            raise FUSEError(errno.EROFS)
        return realm

    def _register(self, file: Opened) -> FileInfo:
        """Give an open file its number."""
        raise NotImplementedError

    @answering_change
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        realm = self._writable(parent_inode)
        made = await realm.create(parent_inode, name, _maker(mode, ctx))
        file = await realm.open_writable(made.st_ino, truncate=False)
        return self._register_written(file), made

    @answering_change
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        realm = self._writable(parent_inode)
        if not stat.S_ISREG(mode):
            raise FUSEError(errno.EPERM)
        return await realm.create(parent_inode, name, _maker(mode, ctx))

    @answering_change
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        realm = self._writable(parent_inode)
        return await realm.make_folder(parent_inode, name, _maker(mode, ctx))

    @answering_change
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        realm = self._writable(parent_inode)
        return await realm.make_link(parent_inode, name, target, _maker(ModeT(0o777), ctx))

    @answering_change
    async def link(
        self,
        inode: InodeT,
        new_parent_inode: InodeT,
        new_name: FileNameT,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """A node has one name."""
        self._writable(new_parent_inode)
        raise FUSEError(errno.EPERM)

    @answering_change
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._writable(parent_inode).unlink(parent_inode, name)

    @answering_change
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._writable(parent_inode).remove_folder(parent_inode, name)

    @answering_change
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        realm = self._writable(parent_inode_old)
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(errno.EINVAL)
        await realm.rename(
            parent_inode_old, name_old, parent_inode_new, name_new, replace=not flags
        )

    @answering_change
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        realm = self._writable(inode)
        changes = Changes(
            attr.st_size if fields.update_size else None,
            stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            attr.st_uid if fields.update_uid else None,
            attr.st_gid if fields.update_gid else None,
            attr.st_mtime_ns if fields.update_mtime else None,
        )
        return await realm.change(inode, changes)

    @answering_change
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        await self._written[fh].write(off, buf)
        return len(buf)

    @answering_change
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        file = self._written.get(fh)
        if file is not None:
            await file.sync()

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Names are durable already."""

    async def flush(self, fh: FileHandleT) -> None:
        """A close makes nothing durable, as on any disk."""

    @answering_change
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        self._writable(inode)
        raise FUSEError(errno.ENOTSUP)

    @answering_change
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        self._writable(inode)
        raise FUSEError(errno.ENOTSUP)

    @answering
    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        """Who may is judged by the kernel; here only whether it can be written at all."""
        if mode & _WRITE and (inode == LIVE or self._writable_of(inode) is None):
            raise FUSEError(errno.EROFS)
        return True

    def _register_written(self, file: WritableOpened) -> FileInfo:
        info = self._register(file)
        self._written[info.fh] = file
        return info


def _maker(mode: ModeT, ctx: RequestContext) -> Maker:
    return Maker(stat.S_IMODE(mode), ctx.uid, ctx.gid)
