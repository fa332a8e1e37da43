"""Guest files into a folder, with all that they are: `cp -a` out of a restore point.

Decides that one file that cannot be read or written costs that file only, and is told; that a file
with several names in the guest gets as many in the copy; and that holes stay holes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.guest.copying.attribute_keeper import AttributeKeeper, Target
from backpoint_fusefs.guest.copying.copy_report import CopyReport
from backpoint_fusefs.guest.copying.landing_folder import LandingFolder, link
from backpoint_fusefs.guest.file_pieces import read_pieces
from backpoint_fusefs.guest.filesystem import GuestError
from backpoint_fusefs.guest.guest_tree import Found, GuestTree, path_below, shown
from backpoint_fusefs.guest.point_guest import UNREADABLE
from backpoint_fusefs.guest.tree_walk import TreeWalk, Visit
from backpoint_repo.errors import TargetError, UsageError

_HOPELESS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""No other file could be written either."""

_Copied = dict[tuple[str, int, int], tuple[tuple[bytes, ...], bytes]]
"""A guest's files that have several names -> the folder of the first in the copy, and its name."""


@dataclass(frozen=True)
class CopyParts:
    """What a copy works with. advance: is told of bytes dealt with. force: files that are there
    are replaced, and folders that are there get the guest's attributes."""

    report: CopyReport
    keeper: AttributeKeeper
    ahead: Executor
    advance: Callable[[int], None]
    force: bool


class CopyOut:
    """Into `top`, which stays open."""

    def __init__(self, top: LandingFolder, parts: CopyParts) -> None:
        self._top = top
        self._parts = parts
        self._of_guests: dict[GuestTree, _Copied] = {}
        self._copied: _Copied = {}

    def copy(self, tree: GuestTree, source: Found, label: bytes, name: bytes) -> None:
        """label: the source's path, for messages. name: what it is called in the copy; empty: it
        is a folder whose content comes straight into the top.

        Raises TargetError where nothing more can be written, and StoreUnavailable.
        """
        self._copied = self._of_guests.setdefault(tree, {})
        walk = TreeWalk(tree, source, ordered=False)
        stack = [self._top]
        try:
            for visit in walk:
                path = path_below(label, visit.path) if visit.path else label
                try:
                    if visit.problem is not None:
                        raise visit.problem
                    entered = self._visit(
                        visit, stack[-1], os.path.basename(visit.path) or name, path
                    )
                    stack += [] if entered is None else [entered]
                except (*UNREADABLE, UsageError) as error:
                    self._parts.report.failure(path, error)
                    walk.skip()
                except OSError as error:
                    self._parts.report.failure(path, _target_error(path, error))
                    walk.skip()
                if visit.leaving:
                    stack.pop().close()
        finally:
            for folder in stack[1:]:
                folder.close()

    def _visit(
        self, visit: Visit, folder: LandingFolder, name: bytes, path: bytes
    ) -> LandingFolder | None:
        """The folder that is entered by it. folder: the one that it is in, or that is left."""
        found = visit.found
        assert found is not None
        if visit.leaving:
            if folder.made or self._parts.force:
                self._keep(Target(folder.descriptor), found, path)
        elif found.is_folder:
            self._parts.report.folders += 1
            return folder.enter(name) if name else folder.descend(())
        elif _is_device(found) and os.geteuid() != 0:
            self._parts.report.shortfall("device nodes", path, "only root can make them")
        elif not (found.stat.nlink > 1 and self._link(found, folder, name, path)):
            folder.land(name, self._maker(found, folder, path), force=self._parts.force)
            if found.stat.nlink > 1:
                self._copied[found.identity] = folder.path, name
        return None

    def _link(self, found: Found, folder: LandingFolder, name: bytes, path: bytes) -> bool:
        """Give the copy of the same file another name; False where there is none, or it cannot
        have one."""
        place = self._copied.get(found.identity)
        if place is None:
            return False
        folder.refuse_taken(name, force=self._parts.force)
        try:
            with self._top.descend(place[0]) as first:
                folder.land(
                    name,
                    lambda hidden: link(first, place[1], folder, hidden),
                    force=self._parts.force,
                )
        except OSError as error:
            self._parts.report.shortfall("hard links", path, error.strerror or str(error))
            return False
        self._parts.report.hard_links += 1
        return True

    def _maker(self, found: Found, folder: LandingFolder, path: bytes) -> Callable[[bytes], None]:
        """What makes it under the name that it is given."""

        def make(hidden: bytes) -> None:
            if found.is_regular:
                self._make_file(found, folder, hidden, path)
            elif found.is_link:
                target = found.on.readlink(found.stat.file)
                os.symlink(target, hidden, dir_fd=folder.descriptor)
                self._keep(Target(folder.place(hidden), link=True), found, path)
                self._parts.report.links += 1
            else:
                self._make_special(found, folder, hidden, path)

        return make

    def _make_file(self, found: Found, folder: LandingFolder, hidden: bytes, path: bytes) -> None:
        with folder.created(hidden) as descriptor:
            for offset, length, content in read_pieces(found.on, found.stat, self._parts.ahead):
                if content is not None:
                    _write(descriptor, content, offset)
                self._parts.advance(length)
            os.ftruncate(descriptor, found.stat.size)
            self._keep(Target(descriptor), found, path)
        self._parts.report.files += 1
        self._parts.report.bytes_copied += found.stat.size

    def _make_special(
        self, found: Found, folder: LandingFolder, hidden: bytes, path: bytes
    ) -> None:
        kind = stat.S_IFMT(found.stat.mode)
        os.mknod(hidden, kind | 0o600, found.stat.rdev, dir_fd=folder.descriptor)
        with folder.held(hidden) as place:
            self._keep(Target(place), found, path)
        self._parts.report.specials += 1

    def _keep(self, target: Target, found: Found, path: bytes) -> None:
        try:
            xattrs = found.xattrs()
        except UNREADABLE as error:
            why = GuestError(f"its extended attributes cannot be read: {error}")
            self._parts.report.failure(path, why)
            xattrs = {}
        self._parts.keeper.keep(target, found.stat, xattrs, path)


def _write(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def _is_device(found: Found) -> bool:
    return stat.S_ISBLK(found.stat.mode) or stat.S_ISCHR(found.stat.mode)


def _target_error(path: bytes, error: OSError) -> TargetError:
    why = error.strerror or str(error)
    if error.errno in _HOPELESS:
        raise TargetError(f"cannot write {shown(path)}: {why}") from error
    return TargetError(f"cannot be written: {why}")
