"""`backpoint parity`: spare packs, so that lost and damaged ones can be made again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.parity.coverage import Coverage
    from backpoint_repo.parity.plan import Scheme
    from backpoint_repo.parity.upkeep import Upkeep, UpkeepReport
    from backpoint_repo.repository import Repository

HELP: Final = "keep spare packs that repair lost or damaged ones"
UNPROTECTED: Final = 1
_SHOWN_MAX: Final = 50

_DESCRIPTION: Final = """
Bring parity up to date: packs that no parity group covers yet are put into groups, and spare
packs are made for each (Reed-Solomon). With 10+2, a group has up to 10 packs and 2 spares: any 2 of
the 12 may be lost or damaged, and `backpoint heal` makes them again. It costs 2/10 = 20 % more
space. Rot is repaired by the MiB: 2 bad ones at each place of a group, whichever packs are hit.

Run it after backups and after collect, by the same timer: only what is new is read and written.
Groups whose packs were collected are replaced. --set and --off say what holds from now on, and do
it at once. Spares lie in the same place as the packs: they help against rot and lost files, not
against the loss of the whole place.

No passphrase is needed: an agent credential will do.
"""
_EXAMPLES: Final = """
backpoint parity --set 10+2
backpoint parity
backpoint parity --verify
backpoint parity --dry-run --json
"""
_EXIT_CODES: Final = """\
exit codes:
  0 all packs are protected, or none are to be   1 something could not be protected or replaced
  2 wrong use   4 the store cannot be used, or is no repository   5 a key or passphrase is wrong
  130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--set", metavar="N+M", dest="scheme", help="from now on: N packs and M spares to a group"
    )
    choice.add_argument("--off", action="store_true", help="no parity from now on; drop the spares")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="also read all groups and their packs, and replace groups that do not hold",
    )
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say how things stand and what it costs"
    )


def run(args: argparse.Namespace) -> int:
    """0 where all is protected, 1 where something is not. Raises what opening raises."""
    from backpoint_repo.features import refuse_unknown_features
    from backpoint_repo.opening import open_from
    from backpoint_repo.parity.upkeep import Upkeep
    from backpoint_repo.parity.upkeep_lease import upkeep_lease
    from backpoint_repo.terminal import warn

    repository = open_from(args)
    if args.dry_run:
        scheme = _scheme(args, repository)
        upkeep = Upkeep(repository, scheme)
        _verify(args, upkeep)
        _tell_plan(args, upkeep, scheme)
        return 0
    refuse_unknown_features(repository.sealed.store)
    with upkeep_lease(repository.sealed, repository.clock, lambda error: warn(str(error))):
        scheme = _settled(args, repository)
        upkeep = Upkeep(repository, scheme)
        _verify(args, upkeep)
        report = _run(args, upkeep, scheme)
    _tell_report(args, report, scheme)
    return 0 if report.in_order(scheme) else UNPROTECTED


def _scheme(args: argparse.Namespace, repository: Repository) -> Scheme | None:
    from backpoint_repo.errors import UsageError
    from backpoint_repo.policy import parse_parity, read_policy

    if args.off:
        return None
    if args.scheme is not None:
        return parse_parity(args.scheme)
    scheme = read_policy(repository.sealed).parity
    if scheme is None:
        raise UsageError("this repository has no parity; --set 10+2 gives it some (see --help)")
    return scheme


def _settled(args: argparse.Namespace, repository: Repository) -> Scheme | None:
    """The scheme, which is the repository's from now on."""
    from backpoint_repo.policy import Policy, put_policy, read_policy

    scheme = _scheme(args, repository)
    if scheme != read_policy(repository.sealed).parity:
        put_policy(repository.sealed, Policy(parity=scheme), repository.clock)
    return scheme


def _verify(args: argparse.Namespace, upkeep: Upkeep) -> None:
    from backpoint_repo.progress import steps

    if args.verify:
        with steps("verifying", as_json=args.json) as shown:
            shown.phase("groups", upkeep.groups)
            upkeep.verify(shown.advance)


def _run(args: argparse.Namespace, upkeep: Upkeep, scheme: Scheme | None) -> UpkeepReport:
    from backpoint_repo.progress import progress
    from backpoint_repo.terminal import say

    if scheme is not None and upkeep.plan.build and not args.json:
        say(_cost_text(upkeep, scheme))
    with progress("parity", upkeep.plan.read_bytes, as_json=args.json) as advance:
        return upkeep.run(advance)


def _cost_text(upkeep: Upkeep, scheme: Scheme) -> str:
    from backpoint_repo.sizes import counted, format_size

    plan = upkeep.plan
    read, written = plan.read_bytes, plan.written_bytes(scheme[1])
    packs = sum(map(len, plan.build))
    return (
        f"{counted(packs, 'pack')} of {format_size(read)} to be put into "
        f"{counted(len(plan.build), 'group')}: "
        f"{format_size(written)} of spares to write, {written / read:.0%}"
    )


def _tell_plan(args: argparse.Namespace, upkeep: Upkeep, scheme: Scheme | None) -> None:
    from backpoint_repo.sizes import counted
    from backpoint_repo.terminal import print_line, print_record

    plan, coverage = upkeep.plan, upkeep.coverage()
    if args.json:
        record = {
            "dry_run": True,
            "to_make": len(plan.build),
            "to_drop": len(plan.stale),
            "read_bytes": plan.read_bytes,
            "written_bytes": plan.written_bytes(scheme[1]) if scheme else 0,
        }
        print_record(_record(coverage, scheme) | record)
        return
    _tell_coverage(coverage, scheme)
    if scheme is not None and plan.build:
        print_line(f"to do: {_cost_text(upkeep, scheme)}")
    if plan.stale:
        print_line(f"to do: drop {counted(len(plan.stale), 'group')}, if all is well")


def _tell_report(args: argparse.Namespace, report: UpkeepReport, scheme: Scheme | None) -> None:
    from backpoint_repo.sizes import counted
    from backpoint_repo.terminal import print_line, print_record, warn

    if args.json:
        record = {
            "dry_run": False,
            "made": report.made,
            "dropped": report.dropped,
            "waiting": report.waiting,
            "in_doubt": list(report.in_doubt),
        }
        print_record(_record(report.coverage, scheme) | record)
        return
    for doubt in report.in_doubt:
        warn(doubt)
    print_line(f"{counted(report.made, 'group')} made, {report.dropped} dropped")
    if report.waiting:
        print_line(
            f"{counted(report.waiting, 'group')} kept until collect has deleted packs of theirs"
        )
    _tell_coverage(report.coverage, scheme)


def _tell_coverage(coverage: Coverage, scheme: Scheme | None) -> None:
    from backpoint_repo.sizes import counted, format_size
    from backpoint_repo.terminal import print_line, warn

    for text in (*coverage.hurt, *coverage.problems)[:_SHOWN_MAX]:
        warn(text)
    if scheme is None:
        print_line("no parity")
        return
    bare = coverage.packs - coverage.covered_packs
    covered = f"{counted(coverage.covered_packs, 'pack')} of {format_size(coverage.covered_bytes)}"
    print_line(
        f"parity {scheme[0]}+{scheme[1]}: {covered} protected, in "
        f"{counted(coverage.groups, 'group')}; spares take "
        f"{format_size(coverage.spare_bytes)}, {coverage.cost:.1%}"
    )
    if bare:
        print_line(f"{counted(bare, 'pack')} of {format_size(coverage.bare_bytes)} not protected")


def _record(coverage: Coverage, scheme: Scheme | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "type": "parity",
        "scheme": None if scheme is None else f"{scheme[0]}+{scheme[1]}",
        **asdict(coverage),
        "bare_packs": coverage.packs - coverage.covered_packs,
        "bare_bytes": coverage.bare_bytes,
    }
