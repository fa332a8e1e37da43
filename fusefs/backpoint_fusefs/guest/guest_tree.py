"""The guest's files of one point by path, for commands: each volume's tree, and its own view.

Decides what a path means: `/etc/fstab` is in the guest's own view, with its mounts crossed;
`disk0-p1/etc/fstab` in one volume. Links on the way are followed inside of that view or volume, and
cannot lead out. Blocks; what the guest got wrong raises GuestError, reading the disks what that
raises.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import FileId, GuestError, Stat
from backpoint_fusefs.guest.guest_root import GuestRoot, root_of
from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_fusefs.guest.parser_answers import Line
from backpoint_fusefs.guest.point_guest import UNREADABLE, PointGuest, problem_of
from backpoint_fusefs.guest.volume import Volume
from backpoint_repo.errors import (
    BackpointError,
    UsageError,
)

_LINKS_MAX: Final = 40
"""As Linux: one more in a path is a loop."""
_DRIVES: Final = Stat(0, 1, stat.S_IFDIR | 0o555, 2, 0, 0, 0, 0, 0, 0, 0, 0)
"""The folder of a Windows guest's drives, which is on none of them."""


@dataclass(frozen=True)
class Found:
    """A file of the guest. volume: where it is; None for the folder of a Windows guest's drives.
    mount: number of the mount in the guest's own view, None in a volume's tree."""

    stat: Stat
    volume: GuestVolume | None
    mount: int | None

    @property
    def on(self) -> GuestVolume:
        """Its volume, of whatever has one: everything but the folder of drives."""
        assert self.volume is not None
        return self.volume

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.stat.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.stat.mode)

    @property
    def identity(self) -> tuple[str, int, int]:
        """Which file of the guest it is, by whatever path it was found."""
        name = "" if self.volume is None else self.volume.volume.name
        return name, self.stat.tree, self.stat.ino

    def xattrs(self) -> dict[bytes, bytes]:
        """With ACLs, as the kernel gives them."""
        return {} if self.volume is None else self.volume.xattrs(self.stat.file)


class Child(NamedTuple):
    """An entry of a folder. found: None where it cannot be read, which `problem` then says."""

    name: bytes
    found: Found | None
    problem: BackpointError | None = None


class GuestTree:
    """Not thread-safe."""

    def __init__(self, guest: PointGuest) -> None:
        self._guest = guest

    @cached_property
    def volumes(self) -> tuple[Volume, ...]:
        """All of them, also those that cannot be read; nothing is opened for it."""
        return self._guest.volumes()

    @cached_property
    def view(self) -> GuestRoot:
        """The guest's own view; all volumes are opened for it."""
        return root_of(self._guest)

    def problem(self, volume: Volume) -> str:
        """Why its files cannot be read; empty where they can."""
        if volume.problem:
            return volume.problem
        return problem_of(self._guest.readable()[volume.name])

    def recovery(self, volume: Volume) -> str:
        """A sentence where its journal holds changes that are not shown, else empty."""
        return "" if self.problem(volume) else self._guest.readable()[volume.name].facts().recovery

    def gaps(self, start: Found, *, below: bool) -> list[str]:
        """What a look at it may silently lack, in sentences. below: at all that is below it."""
        volumes, notes = [] if start.volume is None else [start.volume], []
        if below and (start.mount is not None or start.volume is None):
            volumes, notes = [mount.volume for mount in self.view.mounts], self.view.notes
        recoveries = {one.volume.name: one.facts().recovery for one in volumes}
        return [*notes, *(f"{name}: {said}" for name, said in recoveries.items() if said)]

    def has_mounts_below(self, found: Found) -> bool:
        """Whether other volumes may be mounted somewhere below it in the guest's own view."""
        if found.mount is None:
            return False
        return any(one.folder and one.folder[0] == found.mount for one in self.view.mounts)

    def find(self, path: bytes, *, follow: bool) -> Found:
        """What is there. follow: where it is a link, what that leads to.

        Raises UsageError where nothing is there, or the volume is not.
        """
        top, names = self._start(path)
        names.reverse()
        stack, links = [top], 0
        while names:
            name = names.pop()
            self._expect_folder(stack[-1], path)
            if name in (b"", b"."):
                continue
            if name == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            found = self._lookup(stack[-1], name)
            if found is None:
                raise UsageError(f"there is no {shown(path)}")
            if not found.is_link or not (names or follow):
                stack.append(found)
                continue
            links += 1
            if links > _LINKS_MAX:
                raise UsageError(f"{shown(path)}: its links lead round in circles")
            target = found.on.readlink(found.stat.file)
            if target.startswith(b"/"):
                del stack[1:]
            names += target.split(b"/")[::-1]
        return stack[-1]

    def children(self, folder: Found) -> Iterator[Child]:
        """In the filesystem's own order, page by page."""
        if folder.volume is None:
            for number, mount in enumerate(self.view.mounts):
                yield self._child(folder, Line(mount.path.strip(b"/"), mount.root, None), number)
            return
        number, more = 0, True
        while more:
            page = folder.volume.page(folder.stat.file, number)
            for line in page.lines:
                yield self._child(folder, line, self._crossed(folder.mount, line.file))
            number, more = number + 1, page.more

    def _start(self, path: bytes) -> tuple[Found, list[bytes]]:
        """The top of the view or volume, and the names below it."""
        if path.startswith(b"/"):
            return self._top(), path.split(b"/")[1:]
        name, *names = path.split(b"/")
        return self.top_of(self.volume(name)), names

    def volume(self, name: bytes) -> Volume:
        """Raises UsageError where there is none of this name."""
        for volume in self.volumes:
            if volume.name.encode() == name:
                return volume
        raise UsageError(
            f"there is no volume {shown(name)}; there are: {self._names() or 'none at all'} "
            "(a path in the guest's own view begins with a /)"
        )

    def top_of(self, volume: Volume) -> Found:
        """Its root. Raises GuestError where it cannot be read."""
        problem = self.problem(volume)
        if problem:
            raise GuestError(f"{volume.name} cannot be read: {problem}")
        opened = self._guest.readable()[volume.name]
        return Found(opened.stat(opened.root()), opened, None)

    def _top(self) -> Found:
        view = self.view
        if view.kind == "none":
            notes = " ".join(view.notes)
            raise GuestError(f"there is no view of the guest's own, only volumes: {notes}")
        if view.kind == "windows":
            return Found(_DRIVES, None, None)
        top = view.mounts[0]
        return Found(top.volume.stat(top.root), top.volume, 0)

    def _lookup(self, folder: Found, name: bytes) -> Found | None:
        if folder.volume is None:
            children = {child.name: child for child in self.children(folder)}
            child = children.get(name)
            if child is not None and child.problem is not None:
                raise child.problem
            return None if child is None else child.found
        found = folder.volume.lookup(folder.stat.file, name)
        if found is None:
            return None
        covering = self._crossed(folder.mount, found.file)
        if covering is None:
            return Found(found, folder.volume, folder.mount)
        mount = self.view.mounts[covering]
        return Found(mount.volume.stat(mount.root), mount.volume, covering)

    def _crossed(self, mount: int | None, file: FileId) -> int | None:
        return None if mount is None else self.view.crossed(mount, file)

    def _child(self, folder: Found, line: Line, covering: int | None) -> Child:
        if covering is None and line.found is not None:
            return Child(line.name, Found(line.found, folder.volume, folder.mount))
        volume, file, mount = folder.volume, line.file, folder.mount
        if covering is not None:
            top = self.view.mounts[covering]
            volume, file, mount = top.volume, top.root, covering
        assert volume is not None
        try:
            return Child(line.name, Found(volume.stat(file), volume, mount))
        except UNREADABLE as error:
            return Child(line.name, None, error)

    def _expect_folder(self, found: Found, path: bytes) -> None:
        if not found.is_folder:
            raise UsageError(f"there is no {shown(path)}: a part of it is no folder")

    def _names(self) -> str:
        return ", ".join(volume.name for volume in self.volumes)


def shown(path: bytes) -> str:
    """A guest's name in a message; `terminal.printable` does the rest."""
    return path.decode("utf-8", "backslashreplace")


def path_below(path: bytes, name: bytes) -> bytes:
    """The path of an entry of the folder at `path`; an empty one is where a walk began."""
    return path + name if path.endswith(b"/") or not path else path + b"/" + name
