"""`backpoint cp`: files out of a restore point, with all their attributes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backpoint_fusefs.commands.ls import PLACE
from backpoint_repo.cache_options import add_cache_options
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_fusefs.guest.copying.copy_report import CopyReport
    from backpoint_fusefs.guest.copying.landing_folder import LandingFolder
    from backpoint_fusefs.guest.guest_shelf import GuestShelf
    from backpoint_fusefs.guest.guest_tree import Found, GuestTree

HELP: Final = "copy the guest's files out of a restore point"
_STDOUT: Final = "-"

_DESCRIPTION: Final = """
Copy files and folders out of a restore point, without mounting it: contents with their holes,
modes, owners, times, links, hard links, extended attributes, ACLs and devices, as `cp -a` does.
PATH is what it is for `backpoint ls`; a link named itself is copied as a link.

DEST is a folder to copy into, or the new name of the only source; `-` writes one file to stdout. Of
a PATH that ends in / the content goes into DEST, without the folder itself. Files that are there
already are left alone and reported, unless --force is given; folders are merged.

Only root can give files to their owners. Otherwise, and with --no-owner, they are yours, without
setuid bits. What cannot be read or written is reported and the rest is copied; the exit code is
then that of the first failure. No file has its name before it is whole.
"""
_EXAMPLES: Final = """
backpoint cp web01@latest:/etc/fstab .
backpoint cp web01@2026-11-20:/var/www web01@-1:/etc/nginx /srv/restored
backpoint cp web01@latest:disk1-p1/data/ /srv/data
backpoint cp db@latest:/var/backups/all.sql.gz - | zcat | psql
"""
_EXIT_CODES: Final = """\
exit codes:
  0 all copied   2 wrong use, or a name was taken   3 the guest's filesystem is damaged
  4 the repository failed   5 a key or passphrase is wrong or not enough
  6 DEST cannot be written   130 interrupted
"""


class Source(NamedTuple):
    """path: as it was given. name: what it is called in DEST; empty: its content goes there."""

    tree: GuestTree
    found: Found
    path: bytes
    name: bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    parser.add_argument("places", metavar="VM@POINT:PATH", nargs="+", help=PLACE)
    parser.add_argument("dest", metavar="DEST", help="a folder, a new name, or - for stdout")
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument(
        "--no-owner",
        action="store_true",
        help="all files are yours, without what concerns other owners: ACLs, setuid bits, security "
        "attributes",
    )
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """0, or the exit code of the first failure. Raises UsageError, KeyFault, GuestError,
    TargetError, and what a store raises."""
    from backpoint_fusefs.guest.guest_shelf import GuestShelf
    from backpoint_repo.opening import open_cached_from, require_owner

    repository = open_cached_from(args)
    require_owner(repository, "reading a guest's files")
    with GuestShelf(repository) as shelf:
        if args.dest == _STDOUT:
            _copy_to_stdout(args, shelf)
            return 0
        return _copy_to_folder(args, [_source(shelf, place) for place in args.places])


def _source(shelf: GuestShelf, place: str) -> Source:
    from backpoint_repo.errors import UsageError

    _, tree, path = shelf.open(place)
    if not path:
        raise UsageError(f"{place}: which files? Give a path: {place.rstrip(':')}:/etc")
    name = os.path.basename(path)
    inside = name in (b"", b".", b"..")
    return Source(tree, tree.find(path, follow=inside), path, b"" if inside else name)


def _copy_to_stdout(args: argparse.Namespace, shelf: GuestShelf) -> None:
    import sys

    from backpoint_fusefs.guest.copying.copy_stream import copy_to_stream
    from backpoint_repo.errors import TargetError, UsageError
    from backpoint_repo.progress import progress

    if len(args.places) > 1:
        raise UsageError("- takes one file only")
    _, tree, path = shelf.open(args.places[0])
    found = tree.find(path, follow=True)
    if not found.is_regular:
        raise UsageError(f"{args.places[0]} is no regular file, which - needs")
    _warn_of_gaps([Source(tree, found, path, b"")])
    try:
        with progress("copying", found.stat.size, as_json=args.json) as advance:
            copy_to_stream(found, sys.stdout.buffer, advance)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TargetError(f"cannot write to stdout: {error.strerror}") from error


def _copy_to_folder(args: argparse.Namespace, sources: list[Source]) -> int:
    import time

    from backpoint_fusefs.guest.copying.copy_report import CopyReport
    from backpoint_repo.process_tuning import tune_for_chunks
    from backpoint_repo.progress import progress
    from backpoint_repo.terminal import say, warn

    started = time.monotonic()
    report = CopyReport(say, warn)
    _warn_of_gaps(sources)
    with _landing(args.dest, sources) as (top, named):
        tune_for_chunks()
        total = _size_of(named)
        with progress("copying", total, as_json=args.json) as advance:
            _copy(args, top, named, report, advance)
        _make_durable(top)
    report.warn_of_shortfalls()
    _tell(args, report, time.monotonic() - started)
    return report.exit_code


@contextmanager
def _landing(dest: str, sources: list[Source]) -> Iterator[tuple[LandingFolder, list[Source]]]:
    """Where to copy to, and the sources with the names they will have there.

    Raises UsageError where DEST is neither a folder nor can be the name of the only source.
    """
    from backpoint_fusefs.guest.copying.landing_folder import LandingFolder
    from backpoint_repo.errors import TargetError, UsageError

    path = os.fsencode(dest)
    if not os.path.isdir(path):
        name = os.path.basename(path.rstrip(b"/"))
        if len(sources) > 1 or not name or (path.endswith(b"/") and not sources[0].found.is_folder):
            raise UsageError(f"there is no folder {dest!r} to copy into")
        sources = [sources[0]._replace(name=name)]
        path = os.path.dirname(path.rstrip(b"/")) or b"."
    for source in sources:
        if not source.name and not source.found.is_folder:
            raise UsageError(f"{source.path!r} is no folder")
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"there is no folder {os.fsdecode(path)!r} to copy into") from None
    except OSError as error:
        raise TargetError(f"cannot open {os.fsdecode(path)!r}: {error.strerror}") from error
    with LandingFolder(opened, made=False) as top:
        yield top, sources


def _copy(
    args: argparse.Namespace,
    top: LandingFolder,
    sources: list[Source],
    report: CopyReport,
    advance: Callable[[int], None],
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from backpoint_fusefs.guest.copying.attribute_keeper import AttributeKeeper
    from backpoint_fusefs.guest.copying.copy_out import CopyOut, CopyParts
    from backpoint_fusefs.guest.file_pieces import threads_for

    keeper = AttributeKeeper(report, owners=not args.no_owner)
    threads = threads_for(source.found.volume for source in sources)
    with ThreadPoolExecutor(threads, "cp") as ahead:
        copy = CopyOut(top, CopyParts(report, keeper, ahead, advance, args.force))
        for source in sources:
            copy.copy(source.tree, source.found, source.path, source.name)


def _size_of(sources: list[Source]) -> int:
    """Bytes of all regular files, those with several names once."""
    from backpoint_fusefs.guest.tree_walk import TreeWalk

    total, counted = 0, set()
    for source in sources:
        for visit in TreeWalk(source.tree, source.found, ordered=False):
            if visit.found is None or not visit.found.is_regular:
                continue
            if visit.found.stat.nlink > 1:
                if (source.tree, visit.found.identity) in counted:
                    continue
                counted.add((source.tree, visit.found.identity))
            total += visit.found.stat.size
    return total


def _make_durable(top: LandingFolder) -> None:
    """A copy that is reported as done survives a power cut. Raises TargetError."""
    import ctypes

    from backpoint_repo.errors import TargetError

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(top.descriptor):
        raise TargetError(f"cannot write: {os.strerror(ctypes.get_errno())}")


def _warn_of_gaps(sources: list[Source]) -> None:
    from backpoint_repo.terminal import warn

    gaps = (gap for one in sources for gap in one.tree.gaps(one.found, below=one.found.is_folder))
    for gap in dict.fromkeys(gaps):
        warn(gap)


def _tell(args: argparse.Namespace, report: CopyReport, seconds: float) -> None:
    from backpoint_repo.sizes import format_duration, format_size
    from backpoint_repo.terminal import print_line, print_record

    if args.json:
        record: dict[str, Any] = {"type": "copied", "dest": args.dest, **report.record()}
        print_record(record | {"duration_s": round(seconds, 3)})
        return
    counts = (
        f"{report.files} files ({format_size(report.bytes_copied)}), {report.folders} folders, "
        f"{report.links} links"
    )
    failed = f"; {report.failed} failed" if report.failed else ""
    print_line(f"copied {counts} to {args.dest} in {format_duration(seconds)}{failed}")
