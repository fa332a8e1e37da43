"""`backpoint live migrate`: a VM that runs from the backup moves to production, while it runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_agent.commands.live_opening import (
    ENVIRONMENT,
    EXIT_CODES,
    add_config_option,
    tell_mistakes,
)
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_agent.commands.live_opening import Desk
    from backpoint_agent.effect import Effect
    from backpoint_agent.machine import Machine

HELP: Final = "move a VM that runs from a session to a production datastore"

_DESCRIPTION: Final = """
Move a VM that `backpoint boot --vcenter` began, with its disks and all that was written, to a
datastore of its host, by Storage vMotion; it may run meanwhile. When nothing of it is left in the
backup, its session is discarded, and the datastore is unmounted when no other VM runs from it. Then
the VM is one like any other.

Cut off, it goes on where it was when this is said again: vCenter moves on by itself meanwhile.
"""
_EXAMPLES: Final = """
backpoint live migrate web01-live-3f2a9c01 -c backpoint.toml --datastore vmfs01
"""
_PERCENT: Final = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=ENVIRONMENT, exit_codes=EXIT_CODES
    )
    parser.add_argument("session", metavar="SESSION", help="as the boot called it")
    add_config_option(parser)
    parser.add_argument("--datastore", metavar="DATASTORE", required=True, help="where to")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, Busy, VSphereError."""
    return tell_mistakes(_run, args)


def _run(args: argparse.Namespace) -> int:
    from backpoint_agent.commands.live_opening import desk_of_session, say_outcomes
    from backpoint_agent.commands.opening import read_settings
    from backpoint_agent.live.known_sessions import finish
    from backpoint_repo.terminal import print_line, print_record

    with desk_of_session(read_settings(args), args.session) as (desk, effect):
        effect, machine = _move(desk, effect, args)
        done = say_outcomes(finish(desk.means, effect))
    if args.json:
        print_record(
            {
                "type": "live-migrate",
                "session": args.session,
                "vm": machine.name,
                "moref": machine.moref,
                "datastores": list(machine.datastores),
                "done": done,
            }
        )
    else:
        print_line(f"{machine.name} is on {', '.join(machine.datastores)} now")
        for line in done:
            print_line(line)
    return 0


def _move(desk: Desk, effect: Effect, args: argparse.Namespace) -> tuple[Effect, Machine]:
    from backpoint_agent.live.known_sessions import note
    from backpoint_agent.live.live_facts import live_facts
    from backpoint_agent.live.migrating import await_moving, migrate, plan_target
    from backpoint_agent.restoring.places import read_possible_places
    from backpoint_repo.errors import UsageError
    from backpoint_repo.progress import progress

    means, limit_s = desk.means, desk.settings.live.migrate_s
    facts = live_facts(effect.facts)
    if facts.state in ("starting", "ending"):
        raise UsageError(
            f"{args.session} is no whole VM any more, or never was; `backpoint live end` ends it"
        )
    machine = await_moving(means, facts, limit_s)
    places = read_possible_places(means.vcenter)
    target = plan_target(places, machine, facts, args.datastore)
    effect = note(means.ledger, effect, state="migrating", target=target.name)
    size = max(sum(disk.size for disk in machine.disks), _PERCENT)
    done = 0
    with progress(f"moving {machine.name}", size, as_json=args.json) as advance:

        def percent(more: int) -> None:
            nonlocal done
            before, done = done, done + more
            advance(size * done // _PERCENT - size * before // _PERCENT)

        machine = migrate(means, facts, target, limit_s, percent)
    return effect, machine
