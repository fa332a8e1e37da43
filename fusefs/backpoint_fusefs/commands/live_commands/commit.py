"""`backpoint live commit`: a session becomes a restore point, and goes on."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_fusefs.commands.live_commands.opening import (
    LIVE_ENVIRONMENT,
    SESSION,
    add_live_option,
    open_home,
)
from backpoint_repo.command_parser import OPENS_REPOSITORY, describe

if TYPE_CHECKING:
    from backpoint_repo.point import Point

HELP: Final = "make a restore point of what a session holds"

_DESCRIPTION: Final = """
Make a restore point of a session: all its disks as they were at one moment, and its small files.
Only what was written since the session began, or since the last commit, is read and stored. The
session goes on from there, written all the while; a machine that runs from it does not notice, and
the point is like one taken of a machine whose power was cut.

Production's next backup does not build on such a point, but on its own last one.

Interrupted or failed, nothing is lost: the session holds what it held, and the next commit stores
all of it. A machine with snapshots is refused, because its disks alone are not what it sees.
"""
_EXAMPLES: Final = """
backpoint live commit trial
backpoint live commit trial --label 'after the repair'
backpoint live commit trial --as web01-repaired
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=OPENS_REPOSITORY + LIVE_ENVIRONMENT
    )
    parser.add_argument("session", metavar="SESSION", help=SESSION)
    parser.add_argument("--label", metavar="TEXT", default="", help="a remark kept with the point")
    parser.add_argument(
        "--as",
        dest="vm",
        metavar="VM",
        help="whose point it becomes (default: the VM the session was started from)",
    )
    add_live_option(parser)


def run(args: argparse.Namespace) -> int:
    """Raises NoSuchSession, SessionInUse, SessionDamaged, UsageError, and what a store raises."""
    from backpoint_fusefs.live.committing.commit import CommitWish, commit_session
    from backpoint_repo.process_tuning import tune_for_chunks
    from backpoint_repo.progress import progress

    repository, home = open_home(args, "committing a session")
    tune_for_chunks()  # not before: what scrypt took would be kept too
    label = f"committing {args.session}"
    point = commit_session(
        repository,
        home,
        args.session,
        CommitWish(args.label, args.vm),
        lambda size: progress(label, size, as_json=args.json),
    )
    _report(args, point)
    return 0


def _report(args: argparse.Namespace, point: Point) -> None:
    from backpoint_repo.point_record import full_record, point_name
    from backpoint_repo.sizes import format_duration, format_size
    from backpoint_repo.terminal import print_line, print_record, warn

    for warning in point.warnings:
        warn(warning)
    if args.json:
        print_record({"type": "point", **full_record(point)})
        return
    traffic = point.traffic
    print_line(f"point {point_name(point)} ({point.point_id.hex()[:8]})")
    print_line(
        f"disks {format_size(point.size)}, read {format_size(traffic.read)}, "
        f"new {format_size(traffic.new)}, stored {format_size(traffic.stored)}, "
        f"in {format_duration(point.duration_s)}"
    )
