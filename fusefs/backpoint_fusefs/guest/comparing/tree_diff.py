"""What two points have of a tree: files added, removed and changed.

Decides what counts as a change: something that a program would see, but not that a folder's own
time tells of its entries. Two files are the same without a further look where type, mode, owner,
size, number, time of modification and time of change agree. Folders that lie wholly on bytes that
do not differ are passed over. Blocks.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from backpoint_fusefs.guest.comparing.changed_places import ChangedPlaces
from backpoint_fusefs.guest.comparing.content_difference import content_differs
from backpoint_fusefs.guest.filesystem import Stat
from backpoint_fusefs.guest.guest_tree import Child, Found, GuestTree, path_below
from backpoint_fusefs.guest.point_guest import UNREADABLE
from backpoint_fusefs.guest.tree_walk import Folders, TreeWalk
from backpoint_repo.errors import BackpointError

Change = Literal["added", "removed", "changed", "unknown"]


class Difference(NamedTuple):
    """old, new: the file where it is one; a volume that holds no files has neither. what: changed,
    in words: type, content, target, device, mode, owner, time, attributes. problem: why it could
    not be compared, of an unknown one."""

    path: bytes
    change: Change
    old: Found | None = None
    new: Found | None = None
    what: tuple[str, ...] = ()
    problem: BackpointError | None = None

    @classmethod
    def unknown(cls, path: bytes, problem: BackpointError) -> Difference:
        return cls(path, "unknown", problem=problem)


_Pair = tuple[bytes, Child | None, Child | None]


@dataclass(frozen=True)
class TreeDiff:
    """Of two points, older and newer."""

    old: GuestTree
    new: GuestTree
    changed: ChangedPlaces

    def compare(self, path: bytes, old: Found | None, new: Found | None) -> Iterator[Difference]:
        """Two files or trees at one path, or one that only one point has."""
        folders = Folders()
        begin = tuple(None if found is None else Child(b"", found) for found in (old, new))
        stack: list[Iterator[_Pair]] = [iter([(path, begin[0], begin[1])])]
        while stack:
            pair = next(stack[-1], None)
            if pair is None:
                stack.pop()
                continue
            try:
                yield from self._compare_pair(*pair)
                folder = self._to_enter(*pair[1:])
                if folder is not None:
                    folders.enter(pair[0], *folder)
                    problems, pairs = self._entries(pair[0], *folder)
                    yield from problems
                    stack.append(pairs)
            except UNREADABLE as error:
                yield Difference.unknown(pair[0], error)

    def _compare_pair(
        self, path: bytes, old: Child | None, new: Child | None
    ) -> Iterator[Difference]:
        problem = next((one.problem for one in (old, new) if one and one.problem), None)
        if problem is not None:
            raise problem
        before, after = (None if one is None else one.found for one in (old, new))
        if before is None or after is None:
            yield from self._removed(path, before)
            yield from self._added(path, after)
        elif _kind(before) != _kind(after):
            yield Difference(path, "changed", before, after, ("type",))
            yield from self._removed(path, before, start=False)
            yield from self._added(path, after, start=False)
        elif what := tuple(self._what(before, after)):
            yield Difference(path, "changed", before, after, what)

    def _removed(
        self, path: bytes, found: Found | None, *, start: bool = True
    ) -> Iterator[Difference]:
        """A tree that only the older point has."""
        for whole, one, problem in _all(self.old, path, found, start=start):
            if problem is not None:
                yield Difference.unknown(whole, problem)
            else:
                yield Difference(whole, "removed", old=one)

    def _added(
        self, path: bytes, found: Found | None, *, start: bool = True
    ) -> Iterator[Difference]:
        """A tree that only the newer point has."""
        for whole, one, problem in _all(self.new, path, found, start=start):
            if problem is not None:
                yield Difference.unknown(whole, problem)
            else:
                yield Difference(whole, "added", new=one)

    def _what(self, old: Found, new: Found) -> Iterator[str]:
        one, other = old.stat, new.stat
        if _sameness(one) == _sameness(other):
            return
        if old.is_regular and content_differs(old, new, self.changed):
            yield "content"
        if old.is_link and old.on.readlink(one.file) != new.on.readlink(other.file):
            yield "target"
        if one.rdev != other.rdev:
            yield "device"
        if one.mode != other.mode:
            yield "mode"
        if (one.uid, one.gid) != (other.uid, other.gid):
            yield "owner"
        if one.mtime_ns != other.mtime_ns and not old.is_folder:
            yield "time"
        if old.xattrs() != new.xattrs():
            yield "attributes"

    def _to_enter(self, old: Child | None, new: Child | None) -> tuple[Found, Found] | None:
        """Two folders that may differ below."""
        before, after = (None if one is None else one.found for one in (old, new))
        if before is None or after is None or not (before.is_folder and after.is_folder):
            return None
        if before.volume is not None and after.volume is not None:
            same_volume = self.changed.same_volume(before.volume.volume, after.volume.volume)
            alone = not (self.old.has_mounts_below(before) or self.new.has_mounts_below(after))
            if same_volume and before.stat.file == after.stat.file and alone:
                return None
        return before, after

    def _entries(
        self, path: bytes, old: Found, new: Found
    ) -> tuple[list[Difference], Iterator[_Pair]]:
        """What could not be listed; and the entries by name. Where one side is listed in part, only
        what both have can be compared."""
        before, after = _listed(self.old, old), _listed(self.new, new)
        problems = [problem for problem in (before[1], after[1]) if problem is not None]
        names = before[0].keys() & after[0] if problems else before[0].keys() | after[0]
        pairs = (
            (path_below(path, name), before[0].get(name), after[0].get(name))
            for name in sorted(names)
        )
        return [Difference.unknown(path, problem) for problem in problems], pairs


def _all(
    tree: GuestTree, path: bytes, found: Found | None, *, start: bool
) -> Iterator[tuple[bytes, Found | None, BackpointError | None]]:
    """Every file of a tree, with its path. start: also where it begins."""
    if found is None:
        return
    for visit in TreeWalk(tree, found, ordered=True):
        if visit.problem is not None or (not visit.leaving and (visit.path or start)):
            whole = path_below(path, visit.path) if visit.path else path
            yield whole, visit.found, visit.problem


def _listed(tree: GuestTree, folder: Found) -> tuple[dict[bytes, Child], BackpointError | None]:
    children: dict[bytes, Child] = {}
    try:
        for child in tree.children(folder):
            children[child.name] = child
    except UNREADABLE as error:
        return children, error
    return children, None


def _kind(found: Found) -> int:
    return stat.S_IFMT(found.stat.mode)


def _sameness(found: Stat) -> tuple[int, ...]:
    """What a file cannot be changed without changing; how large a folder is, is nobody's matter."""
    size = 0 if stat.S_ISDIR(found.mode) else found.size
    return (*found.file, found.mode, found.uid, found.gid, size, found.mtime_ns, found.ctime_ns)
