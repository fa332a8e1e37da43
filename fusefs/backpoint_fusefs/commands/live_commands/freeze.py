"""`backpoint live freeze`: a session becomes read-only, or writable again."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_fusefs.commands.live_commands.opening import (
    LIVE_ENVIRONMENT,
    SESSION,
    add_live_option,
    open_home,
)
from backpoint_repo.command_parser import OPENS_REPOSITORY, describe

HELP: Final = "make a session read-only for inspection, or thaw it"

_DESCRIPTION: Final = """
Freeze a session: what was written is made durable, and from then on nothing in it can be written
until it is thawed; writers get "read-only file system". It stays readable, and can be committed or
discarded. A machine that still runs from it will see its disks fail.
"""
_EXAMPLES: Final = """
backpoint live freeze trial
backpoint live freeze trial --thaw
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=OPENS_REPOSITORY + LIVE_ENVIRONMENT
    )
    parser.add_argument("session", metavar="SESSION", help=SESSION)
    parser.add_argument("--thaw", action="store_true", help="make it writable again")
    add_live_option(parser)


def run(args: argparse.Namespace) -> int:
    """Raises NoSuchSession, SessionInUse, SessionDamaged, KeyFault, and what a store raises."""
    from backpoint_fusefs.live.control.holder import hold
    from backpoint_repo.terminal import print_line, print_record

    _, home = open_home(args, "freezing a session")
    frozen = not args.thaw
    with hold(home, args.session) as holder:
        holder.set_frozen(frozen)
    if args.json:
        print_record({"type": "session", "name": args.session, "frozen": frozen})
    else:
        print_line(f"session {args.session} is {'frozen' if frozen else 'writable'}")
    return 0
