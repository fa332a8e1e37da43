"""What differs between two points' guests: all of their volumes, or one place of both.

Decides which volumes need not be looked into, and what is said of those that hold no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backpoint_fusefs.guest.comparing.tree_diff import Difference, TreeDiff
from backpoint_fusefs.guest.filesystem import GuestError
from backpoint_fusefs.guest.guest_tree import Found, GuestTree, shown
from backpoint_fusefs.guest.volume import Volume
from backpoint_repo.errors import UsageError


def point_differences(
    diff: TreeDiff, path: bytes, warn: Callable[[str], None]
) -> Iterator[Difference]:
    """path: see `GuestTree`; empty: all volumes. warn: is told what a tree may silently lack.

    Raises UsageError where the path is in neither point, GuestError where its volume cannot be
    read, and what reading the disks raises.
    """
    if not diff.changed.anything:
        return
    if path.startswith(b"/"):
        yield from _at(diff, path, warn)
        return
    only, _, below = path.partition(b"/")
    old, new = ({one.name: one for one in tree.volumes} for tree in (diff.old, diff.new))
    names = [shown(only)] if only else list(dict.fromkeys([*new, *old]))
    for name in names:
        before, after = old.get(name), new.get(name)
        if before and after and diff.changed.same_volume(before, after):
            continue
        if below or not (before or after):
            yield from _at(diff, path, warn)
        else:
            yield from _volumes(diff, name.encode(), before, after, warn)


def _at(diff: TreeDiff, path: bytes, warn: Callable[[str], None]) -> Iterator[Difference]:
    try:
        old = diff.old.find(path, follow=True)
    except UsageError:
        yield from _compared(diff, path, None, diff.new.find(path, follow=True), warn)
        return
    yield from _compared(diff, path, old, _found(diff.new, path), warn)


def _found(tree: GuestTree, path: bytes) -> Found | None:
    try:
        return tree.find(path, follow=True)
    except UsageError:
        return None


def _volumes(
    diff: TreeDiff,
    path: bytes,
    old: Volume | None,
    new: Volume | None,
    warn: Callable[[str], None],
) -> Iterator[Difference]:
    sides = [(diff.old, old), (diff.new, new)]
    problems = [tree.problem(volume) for tree, volume in sides if volume is not None]
    if not any(problems):
        tops = [None if volume is None else tree.top_of(volume) for tree, volume in sides]
        yield from _compared(diff, path, tops[0], tops[1], warn)
    elif not all(problems):
        why = next(filter(None, problems))
        yield Difference.unknown(path, GuestError(f"in one of the points, {why}"))
    elif old is None or new is None:
        yield Difference(path, "added" if old is None else "removed")
    else:
        yield Difference(path, "changed", what=("content",))


def _compared(
    diff: TreeDiff,
    path: bytes,
    old: Found | None,
    new: Found | None,
    warn: Callable[[str], None],
) -> Iterator[Difference]:
    gaps: list[str] = []
    for tree, found in ((diff.old, old), (diff.new, new)):
        if found is not None:
            gaps += tree.gaps(found, below=found.is_folder)
    for gap in dict.fromkeys(gaps):
        warn(gap)
    yield from diff.compare(path, old, new)
