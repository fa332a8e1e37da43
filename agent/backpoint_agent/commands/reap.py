"""`backpoint agent reap`: what agents that died have left behind is undone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

from backpoint_agent.commands.environment import CONFIGURATION
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.reaping.step import Outcome
    from backpoint_agent.settings.model import Settings
    from backpoint_agent.state_folder import StateFolder

HELP: Final = "remove what runs that were cut off left behind"

_DESCRIPTION: Final = """
Undo what the ledger says was begun and not ended: snapshots, attached disks, export leases,
unfinished VMs of restores, VMs that were to run from the backup and did not come to it, guests left
frozen, change tracking left off. Only what was asked for under a number of this ledger is removed;
a snapshot of somebody else's never is. Each backup does the same for its own VM first. VMs that run
from the backup are listed, and stay.

What no ledger knows is listed: snapshots with our name, disks that need consolidation, VMs that run
on a delta disk without a snapshot.
"""
_EXAMPLES: Final = """
backpoint agent reap -c backpoint.toml --dry-run
backpoint agent reap -c backpoint.toml --orphans --consolidate
backpoint agent reap -c backpoint.toml --forget 20261121T170312Z-4711-9f3a1c2b-3
"""
_EXIT_CODES: Final = """\
exit codes:
  0 nothing of ours is left   2 wrong use   7 something could not be undone, or a vCenter not asked
  130 interrupted
"""
_LEFT: Final = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=CONFIGURATION, exit_codes=_EXIT_CODES
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only show what would be done; changes nothing"
    )
    parser.add_argument(
        "--orphans",
        action="store_true",
        help="also remove snapshots with our name and mark that are older than a day and that no "
        "ledger here knows",
    )
    parser.add_argument(
        "--consolidate",
        action="store_true",
        help="also consolidate disks where that is needed for another reason",
    )
    parser.add_argument(
        "--forget",
        metavar="NUMBER",
        action="append",
        default=[],
        help="first strike this effect off the ledger, without undoing it; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError where the ledger cannot be used or knows no such number."""
    from backpoint_agent.commands.opening import read_settings
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.state_folder import make_state_folder

    settings = read_settings(args)
    state = make_state_folder(settings.state)
    with Ledger(state.ledger) as ledger:
        for number in args.forget:
            _forget(ledger, number, args)
        report = _Report(args.json)
        for name in settings.vcenters:
            report.take(name, _reap_vcenter(settings, state, ledger, name, args, report))
        report.take_unreached(ledger)
        for line in ledger.damage():
            report.trouble(f"{line}; look for what it may have said, then delete the file")
    report.print()
    return _LEFT if report.is_open else 0


class _Report:
    """What was done, line by line as it happens; the table at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._rows: list[tuple[str, ...]] = []
        self._reached: set[str] = set()
        self.is_open = False

    def reached(self, uuid: str) -> None:
        """This vCenter answers; its effects are being dealt with."""
        self._reached.add(uuid)

    def take(self, vcenter: str, outcomes: Iterator[Outcome]) -> None:
        """Take the outcomes of one vCenter."""
        from backpoint_agent.errors import VSphereError
        from backpoint_repo.terminal import print_record

        try:
            for outcome in outcomes:
                self.is_open |= outcome.is_open
                step = outcome.step
                number = step.effect.number if step.effect else ""
                row = (vcenter, step.vm_name, step.what, outcome.result, outcome.said, number)
                self._rows.append(row)
                if self._as_json:
                    print_record(outcome.record(vcenter))
        except VSphereError as error:
            self.trouble(f"{vcenter}: {error}")

    def take_unreached(self, ledger: Ledger) -> None:
        """What stays open because its vCenter was not asked."""
        from backpoint_agent.reaping.plan import keep
        from backpoint_agent.reaping.step import Outcome

        why = "its vCenter is not in the configuration, or did not answer"
        left = [e for e in ledger.open_effects() if e.vcenter not in self._reached]
        self.take("", iter([Outcome(keep(effect, why), "kept", why) for effect in left]))

    def trouble(self, text: str) -> None:
        """Something was not done that is no step."""
        from backpoint_repo.terminal import warn

        self.is_open = True
        warn(text)

    def print(self) -> None:
        """The table, for people."""
        from backpoint_repo.terminal import Column, print_table, say

        if self._as_json:
            return
        if not self._rows:
            say("nothing is left behind" if not self.is_open else "nothing was found")
            return
        headings = ("vcenter", "vm", "what", "result", "why or how", "number")
        print_table([Column(heading) for heading in headings], self._rows)


def _reap_vcenter(
    settings: Settings,
    state: StateFolder,
    ledger: Ledger,
    name: str,
    args: argparse.Namespace,
    report: _Report,
) -> Iterator[Outcome]:
    import time

    from backpoint_agent.commands.opening import connect
    from backpoint_agent.reaping import reap
    from backpoint_agent.reaping.apply import Means
    from backpoint_agent.reaping.step import Outcome
    from backpoint_agent.reaping.strays import Wishes
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.inventory import read_inventory

    stop = Stop()
    with closing(connect(settings, name, stop)) as vcenter:
        means = Means(vcenter, ledger, settings.waits, settings.jobs, stop, settings.repository)
        report.reached(vcenter.uuid)
        wishes = Wishes(time.time(), args.orphans, args.consolidate)
        if args.dry_run:
            yield from reap.show_effects(means)
        else:
            yield from reap.reap_effects(means, state.locks)
        machines = read_inventory(vcenter).machines
        if args.dry_run:
            steps = reap.strays_of(means, machines, wishes)
            yield from (Outcome(step, "planned", step.why) for step in steps)
        else:
            yield from reap.reap_strays(means, state.locks, machines, wishes)


def _forget(ledger: Ledger, number: str, args: argparse.Namespace) -> None:
    from backpoint_agent.reaping.reap import forget
    from backpoint_repo.errors import UsageError
    from backpoint_repo.terminal import say

    if args.dry_run:
        say(f"{number} would be struck off the ledger")
        return
    effect = forget(ledger, number)
    if effect is None:
        raise UsageError(f"the ledger has nothing open under the number {number}")
    say(f"{effect.vm_name}: {effect.kind} {number} is struck off the ledger")
