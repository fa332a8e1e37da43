"""`backpoint ls`: the guest's files of a restore point, or its volumes."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.cache_options import add_cache_options
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_fusefs.guest.guest_tree import Found, GuestTree
    from backpoint_fusefs.guest.volume import Volume
    from backpoint_repo.errors import BackpointError

HELP: Final = "list the guest's files in a restore point"
PLACE: Final = "a point (see show) and a place in it: VM@POINT:/path or VM@POINT:VOLUME/path"

_DESCRIPTION: Final = """
List files inside a restore point, without mounting it. PATH begins with a / where it is a path of
the guest itself, as its /etc/fstab puts its volumes together (of Windows: /C/Users); else its first
part names a volume: disk0-p1/etc/fstab. Links on the way are followed within the guest; a link to
a folder that is named itself shows the folder. Without PATH, the volumes are listed, with what
cannot be read and why, and what the guest's own view is made of.

Owners are shown as numbers, times are UTC. With --json each entry is one record on a line.
"""
_EXAMPLES: Final = """
backpoint ls web01@latest:
backpoint ls -l web01@2026-11-20:/etc
backpoint ls --recursive --json web01@-2:disk0-p1/var/log
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("places", metavar="VM@POINT:PATH", nargs="+", help=PLACE)
    parser.add_argument("-l", "--long", action="store_true", help="with mode, owner, size and time")
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="with everything below, one path a line"
    )
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """0, or the exit code of the first thing that could not be read. Raises UsageError, KeyFault,
    GuestError, and what a store raises."""
    from backpoint_fusefs.guest.guest_shelf import GuestShelf
    from backpoint_repo.opening import open_cached_from, require_owner

    repository = open_cached_from(args)
    require_owner(repository, "reading a guest's files")
    listing = _Listing(args)
    with GuestShelf(repository) as shelf:
        for place in args.places:
            _, tree, path = shelf.open(place)
            if path:
                listing.list(tree, path)
            else:
                _list_volumes(args, tree)
    return listing.code


class _Listing:
    """code: what the command ends with, so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.code = 0

    def list(self, tree: GuestTree, path: bytes) -> None:
        """A folder's entries, or the one file."""
        from backpoint_fusefs.guest.guest_tree import path_below
        from backpoint_fusefs.guest.tree_walk import TreeWalk
        from backpoint_repo.terminal import warn

        start = _start(tree, path)
        for gap in tree.gaps(start, below=start.is_folder and self._args.recursive):
            warn(gap)
        walk = TreeWalk(tree, start, ordered=True)
        for visit in walk:
            if visit.leaving:
                continue
            whole = path_below(path, visit.path) if visit.path else path
            if visit.problem is not None:
                self._problem(whole, visit.problem)
            elif visit.found is not None and (visit.path or not start.is_folder):
                full = self._args.recursive or self._args.json or not visit.path
                self._entry(whole if full else visit.path, visit.found)
            if visit.path and not self._args.recursive:
                walk.skip()

    def _entry(self, path: bytes, found: Found) -> None:
        from backpoint_fusefs.guest.guest_entry import entry_line, entry_record
        from backpoint_fusefs.guest.guest_tree import shown
        from backpoint_fusefs.guest.point_guest import UNREADABLE
        from backpoint_repo.terminal import print_line, print_record

        target = None
        if found.is_link and (self._args.long or self._args.json):
            try:
                target = found.on.readlink(found.stat.file)
            except UNREADABLE as error:
                self._problem(path, error)
        if self._args.json:
            print_record(entry_record(path, found, target))
        else:
            print_line(entry_line(path, found, target) if self._args.long else shown(path))

    def _problem(self, path: bytes, error: BackpointError) -> None:
        from backpoint_fusefs.guest.guest_entry import path_fields
        from backpoint_fusefs.guest.guest_tree import shown
        from backpoint_repo.terminal import print_record, say

        self.code = self.code or error.exit_code
        say(f"{shown(path)}: {error}")
        if self._args.json:
            print_record({"type": "unreadable", **path_fields(path), "problem": str(error)})


def _start(tree: GuestTree, path: bytes) -> Found:
    """What is there; a link to a folder is that folder, any other is itself."""
    from backpoint_fusefs.guest.point_guest import UNREADABLE
    from backpoint_repo.errors import UsageError

    found = tree.find(path, follow=False)
    if found.is_link:
        with contextlib.suppress(*UNREADABLE, UsageError):
            followed = tree.find(path, follow=True)
            return followed if followed.is_folder else found
    return found


def _list_volumes(args: argparse.Namespace, tree: GuestTree) -> None:
    from backpoint_repo.sizes import format_size
    from backpoint_repo.terminal import Column, print_line, print_record, print_table

    if args.json:
        for volume in tree.volumes:
            print_record(_volume_record(tree, volume))
        print_record(_view_record(tree))
        return
    rows = [
        (
            volume.name,
            format_size(volume.size),
            volume.kind or "-",
            volume.label or "-",
            volume.uuid or "-",
            tree.problem(volume) or tree.recovery(volume),
        )
        for volume in tree.volumes
    ]
    columns = [Column("volume"), Column("size", right=True)]
    columns += [Column(word) for word in ("filesystem", "label", "uuid", "problem")]
    print_table(columns, rows)
    print_line()
    for mount in _view_record(tree)["mounts"]:
        print_line(f"{mount['path']} is on {mount['volume']}")
    for note in tree.view.notes:
        print_line(note)


def _volume_record(tree: GuestTree, volume: Volume) -> dict[str, Any]:
    problem = tree.problem(volume)
    return {
        "type": "volume",
        "name": volume.name,
        "size": volume.size,
        "filesystem": volume.kind,
        "label": volume.label,
        "uuid": volume.uuid,
        "partition": volume.partition,
        "partition_label": volume.partition_label,
        "problem": problem,
        "recovery": "" if problem else tree.recovery(volume),
    }


def _view_record(tree: GuestTree) -> dict[str, Any]:
    from backpoint_fusefs.guest.guest_entry import path_fields

    mounts = [
        {**path_fields(mount.path), "volume": mount.volume.volume.name}
        for mount in tree.view.mounts
    ]
    return {"type": "view", "kind": tree.view.kind, "mounts": mounts, "notes": tree.view.notes}
