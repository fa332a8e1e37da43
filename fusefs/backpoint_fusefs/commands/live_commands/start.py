"""`backpoint live start`: a session begins."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_fusefs.commands.live_commands.opening import (
    LIVE_ENVIRONMENT,
    add_live_option,
    open_home,
)
from backpoint_repo.command_parser import OPENS_REPOSITORY, describe

if TYPE_CHECKING:
    from backpoint_fusefs.live.session_home import SessionHome, SessionState

HELP: Final = "begin a session of a restore point"

_DESCRIPTION: Final = """
Begin a session: nothing of the disks is copied, however large they are. The point is kept in the
repository as long as the session is there. A mount with the same --live DIR shows it by itself, and
whoever starts one later, too.
"""
_EXAMPLES: Final = """
backpoint live start web01@latest
backpoint live start web01@2026-11-20 --name trial --live /fast/sessions
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=OPENS_REPOSITORY + LIVE_ENVIRONMENT
    )
    parser.add_argument(
        "point",
        metavar="VM@POINT",
        help="as for show: VM@latest, VM@TIME-PREFIX, VM@INDEX or VM@ID-PREFIX",
    )
    parser.add_argument("--name", metavar="SESSION", help="what to call it (default: VM-NUMBER)")
    # For the agent, which reaches sessions by these commands: whose the session is.
    parser.add_argument("--owner", choices=("", "vcenter"), default="", help=argparse.SUPPRESS)
    add_live_option(parser)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, KeyFault, and what a store raises."""
    from backpoint_repo.point_record import point_name
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.terminal import print_line, print_record, say

    repository, home = open_home(args, "starting a session")
    point = select_point(repository.catalog.refresh(), args.point)
    state = home.start(point, args.name, args.owner)
    if args.json:
        print_record(_record(state, point_name(point)))
        return 0
    print_line(f"session {state.name} of {point_name(point)}, kept in {state.folder}")
    for line in _how_to_go_on(home, state):
        say(line)
    return 0


def _record(state: SessionState, point: str) -> dict[str, object]:
    assert state.record is not None
    return {
        "type": "session",
        "name": state.name,
        "session_id": state.record.session_id,
        "vm": state.record.vm,
        "point": point,
        "point_id": state.record.point_id,
        "folder": str(state.folder),
    }


def _how_to_go_on(home: SessionHome, state: SessionState) -> list[str]:
    name, live = state.name, home.folder
    return [
        f"it appears as live/{name} below every mount made with --live {live}",
        f"`backpoint mount DIR --live {live}` makes one, `backpoint export` one for hypervisors",
        f"`backpoint live commit {name}` makes a restore point of it, `live discard` ends it",
    ]
