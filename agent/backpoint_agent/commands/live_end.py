"""`backpoint live end`: a VM that runs from the backup goes, with all that it wrote."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_agent.commands.live_opening import (
    ENVIRONMENT,
    EXIT_CODES,
    add_config_option,
    tell_mistakes,
)
from backpoint_repo.command_parser import describe

HELP: Final = "end a VM that runs from a session in a vCenter"

_DESCRIPTION: Final = """
End what `backpoint boot --vcenter` began: the VM is powered off and unregistered, its session is
discarded with all that was written, and the datastore is unmounted when no other VM runs from it.
`live commit` before it keeps what was written as a point. A VM that has left the backup's datastore
stays as it is.

Only a VM that carries the number of this agent's ledger, on the datastore that it mounted, is
touched. An end that was cut off goes on where it was when this is said again.
"""
_EXAMPLES: Final = """
backpoint live end web01-live-3f2a9c01 -c backpoint.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=ENVIRONMENT, exit_codes=EXIT_CODES
    )
    parser.add_argument("session", metavar="SESSION", help="as the boot called it")
    add_config_option(parser)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, Busy, VSphereError."""
    return tell_mistakes(_run, args)


def _run(args: argparse.Namespace) -> int:
    from backpoint_agent.commands.live_opening import desk_of_session, say_outcomes
    from backpoint_agent.commands.opening import read_settings
    from backpoint_agent.live.known_sessions import finish, note
    from backpoint_repo.terminal import print_line, print_record

    with desk_of_session(read_settings(args), args.session) as (desk, effect):
        effect = note(desk.means.ledger, effect, state="ending")
        done = say_outcomes(finish(desk.means, effect))
    if args.json:
        print_record(
            {"type": "live-end", "session": args.session, "vm": effect.vm_name, "done": done}
        )
    else:
        for line in done:
            print_line(line)
    return 0
