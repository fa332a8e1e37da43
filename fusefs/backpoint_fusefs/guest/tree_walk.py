"""Everything below a place of the guest, depth first; hostile trees come to an end too.

Decides that no folder is entered twice: a filesystem whose folders contain each other would go on
for ever. What cannot be read is told in its place, and the walk goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestError
from backpoint_fusefs.guest.guest_tree import Child, Found, GuestTree, path_below
from backpoint_fusefs.guest.point_guest import UNREADABLE
from backpoint_repo.errors import BackpointError

_PATH_MAX: Final = 1 << 14
"""Bytes; programs can use 4096. Each level of a folder chain costs its path's length."""


class Visit(NamedTuple):
    """path: below the walk's start, whose own is empty. problem: why it cannot be read or, of a
    folder that was entered, why not all of it can. leaving: a folder, after its content."""

    path: bytes
    found: Found | None
    problem: BackpointError | None = None
    leaving: bool = False


class Folders:
    """Those that have been entered, on all volumes."""

    def __init__(self) -> None:
        self._entered: set[object] = set()

    def enter(self, path: bytes, *found: Found) -> None:
        """Raises GuestError for one (or a pair) that has been entered before, and for paths that
        nobody could use."""
        if len(path) > _PATH_MAX:
            raise GuestError("it lies too deep to be looked into")
        key = tuple((one.identity, one.mount) for one in found)
        if key in self._entered:
            raise GuestError("this folder is somewhere else already, or in itself")
        self._entered.add(key)


class TreeWalk:
    """An iterator of visits. ordered: by name; else as the filesystem has them."""

    def __init__(self, tree: GuestTree, start: Found, *, ordered: bool) -> None:
        self._tree = tree
        self._start = start
        self._ordered = ordered
        self._folders = Folders()
        self._skipped = False

    def skip(self) -> None:
        """Do not look into the folder that was visited just now; it is not left either."""
        self._skipped = True

    def __iter__(self) -> Iterator[Visit]:
        yield Visit(b"", self._start)
        if not self._start.is_folder or self._skipped:
            return
        stack = [(b"", self._start, self._children(b"", self._start))]
        while stack:
            path, folder, children = stack[-1]
            try:
                child = next(children, None)
            except UNREADABLE as error:
                yield Visit(path, folder, error)
                child = None
            if child is None:
                stack.pop()
                yield Visit(path, folder, leaving=True)
                continue
            below = path_below(path, child.name)
            self._skipped = False
            yield Visit(below, child.found, child.problem)
            if child.found is not None and child.found.is_folder and not self._skipped:
                stack.append((below, child.found, self._children(below, child.found)))

    def _children(self, path: bytes, folder: Found) -> Iterator[Child]:
        self._folders.enter(path, folder)
        children = self._tree.children(folder)
        yield from by_name(children) if self._ordered else children


def by_name(children: Iterable[Child]) -> Iterator[Child]:
    """Sorted; where not all could be read, those that could before what that raises."""
    read: list[Child] = []
    problem = None
    try:
        for child in children:
            read.append(child)
    except UNREADABLE as error:
        problem = error
    yield from sorted(read, key=lambda child: child.name)
    if problem is not None:
        raise problem
