"""`backpoint live discard`: a session ends, and all that was written in it goes."""

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
    from backpoint_fusefs.live.session_home import SessionState

HELP: Final = "end a session; all that was written in it goes"

_DESCRIPTION: Final = """
Delete a session with all that was written in it, and let go of its point. Points that were
committed from it stay. A mount that shows the session lets go of it first; whoever has files of it
open there gets errors. There is no way back, so it is asked for on the terminal, unless --yes is
given.

A session that a machine was registered from in vCenter is ended by `backpoint live end`.
"""
_EXAMPLES: Final = """
backpoint live discard trial
backpoint live discard trial --dry-run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=OPENS_REPOSITORY + LIVE_ENVIRONMENT
    )
    parser.add_argument("session", metavar="SESSION", help=SESSION)
    parser.add_argument("--yes", action="store_true", help="discard without asking")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say what would be")
    parser.add_argument(
        "--force", action="store_true", help="also where a vCenter has a machine of it registered"
    )
    add_live_option(parser)


def run(args: argparse.Namespace) -> int:
    """Raises NoSuchSession, SessionInUse, UsageError, and what a store raises."""
    from backpoint_fusefs.live.discard import discard_session, find_session
    from backpoint_repo.sizes import format_size
    from backpoint_repo.terminal import print_line, print_record

    _, home = open_home(args, "discarding a session")
    state = find_session(home, args.session)
    _refuse_registered(args, state)
    if args.dry_run:
        size, said = state.size, f"would discard {_described(state)}"
    else:
        _ask(args, state)
        size = discard_session(home, args.session)
        said = f"session {args.session} discarded, {format_size(size)} freed"
    if args.json:
        done = not args.dry_run
        print_record({"type": "session", "name": state.name, "discarded": done, "size": size})
    else:
        print_line(said)
    return 0


def _described(state: SessionState) -> str:
    from backpoint_repo.sizes import format_size

    of = f" of {state.record.vm}" if state.record else ""
    used = ", in use by a mount" if state.in_use else ""
    return f"session {state.name}{of} ({format_size(state.size)} written{used})"


def _refuse_registered(args: argparse.Namespace, state: SessionState) -> None:
    from backpoint_repo.errors import UsageError

    if state.record is not None and state.record.owner == "vcenter" and not args.force:
        raise UsageError(
            f"a machine of a vCenter runs from session {state.name}: `backpoint live end "
            f"{state.name}` ends both; --force discards the session alone"
        )


def _ask(args: argparse.Namespace, state: SessionState) -> None:
    """Raises UsageError without the user's word."""
    import sys

    from backpoint_repo.errors import UsageError
    from backpoint_repo.terminal import say

    if args.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"discarding the {_described(state)} needs your word: say --yes")
    say(f"the {_described(state)} goes, with all that was written in it")
    print("Discard it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was discarded")
