"""`backpoint diff`: which of the guest's files differ between two restore points."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.cache_options import add_cache_options
from backpoint_repo.command_parser import describe
from backpoint_repo.commands.show import SELECTOR

if TYPE_CHECKING:
    from backpoint_fusefs.guest.comparing.tree_diff import Difference
    from backpoint_fusefs.guest.guest_shelf import GuestShelf
    from backpoint_fusefs.guest.guest_tree import Found, GuestTree
    from backpoint_repo.point import Point

HELP: Final = "list the guest's files that differ between two restore points"
DIFFERENT: Final = 1
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "M"}

_DESCRIPTION: Final = """
List the files that were added (+), removed (-) or changed (M) from one restore point to the other,
with what changed: type, content, target (of a link), device, mode, owner, time (of modification) or
attributes (extended ones, and ACLs). That a folder's entries changed is told by its entries.

Without PATH all volumes are compared, by their names; PATH is what it is for `backpoint ls`, `/` is
all that the guest sees. Volumes whose bytes are the same in both points are not looked into. Files
are taken to be the same where type, mode, owner, size, number and both times agree; else content is
read where the disks differ. A volume that holds no files (swap, LUKS) is compared as a whole.
"""
_EXAMPLES: Final = """
backpoint diff web01@-2 web01@latest
backpoint diff web01@2026-11-20 web01@latest /etc
backpoint diff --json web01@0 web01@-1 disk0-p1/var/lib
"""
_EXIT_CODES: Final = """\
exit codes:
  0 the same   1 different   2 wrong use   3 not all of a guest's filesystem could be compared
  4 the repository failed   5 a key or passphrase is wrong or not enough   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    parser.add_argument("old", metavar="VM@POINT", help=SELECTOR)
    parser.add_argument("new", metavar="VM@POINT", help="the point that it is compared with")
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default="", help="a place in both: /path or VOLUME/path"
    )
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """0 the same, 1 different, else the exit code of the first thing that could not be read.
    Raises UsageError, KeyFault, GuestError, and what a store raises."""
    from backpoint_fusefs.guest.comparing.changed_places import ChangedPlaces
    from backpoint_fusefs.guest.comparing.point_diff import point_differences
    from backpoint_fusefs.guest.comparing.tree_diff import TreeDiff
    from backpoint_fusefs.guest.guest_shelf import GuestShelf
    from backpoint_repo.opening import open_cached_from, require_owner
    from backpoint_repo.terminal import warn

    repository = open_cached_from(args)
    require_owner(repository, "reading a guest's files")
    code = 0
    with GuestShelf(repository) as shelf:
        old, old_tree = _opened(shelf, args.old)
        new, new_tree = _opened(shelf, args.new)
        maps = ([repository.disk_map(disk) for disk in point.disks] for point in (old, new))
        diff = TreeDiff(old_tree, new_tree, ChangedPlaces(*maps))
        for found in point_differences(diff, os.fsencode(args.path), warn):
            _print(args, found)
            if found.problem is None:
                code = code or DIFFERENT
            elif code in (0, DIFFERENT):
                code = found.problem.exit_code
    return code


def _opened(shelf: GuestShelf, selector: str) -> tuple[Point, GuestTree]:
    from backpoint_repo.errors import UsageError

    point, tree, path = shelf.open(selector)
    if path:
        raise UsageError(f"{selector}: give the path by itself, behind both points")
    return point, tree


def _print(args: argparse.Namespace, found: Difference) -> None:
    from backpoint_fusefs.guest.guest_entry import path_fields
    from backpoint_fusefs.guest.guest_tree import shown
    from backpoint_repo.terminal import print_line, print_record, say

    if found.problem is not None:
        say(f"{shown(found.path)}: {found.problem}")
    if args.json:
        record: dict[str, Any] = {"change": found.change, **path_fields(found.path)}
        record |= {"what": found.what, "old": _record(found.old), "new": _record(found.new)}
        if found.problem is not None:
            record["problem"] = str(found.problem)
        print_record(record)
    elif found.problem is None:
        file = found.new or found.old
        folder = "/" if file is not None and file.is_folder else ""
        what = f"  ({', '.join(found.what)})" if found.what else ""
        print_line(f"{_SIGNS[found.change]} {shown(found.path)}{folder}{what}")


def _record(found: Found | None) -> dict[str, Any] | None:
    from backpoint_fusefs.guest.guest_entry import entry_fields

    return None if found is None else entry_fields(found)
