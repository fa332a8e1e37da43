"""`backpoint prune`: remove the points that no rule keeps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.repository import Repository
    from backpoint_repo.retention.plan import Verdict
    from backpoint_repo.retention.prune import PrunePlan
    from backpoint_repo.retention.removal import Removal
    from backpoint_repo.retention.rules import Rules

HELP: Final = "remove the points that no rule keeps"
_COUNTED: Final = {
    "last": "the newest N points",
    "hourly": "the newest point of each of N hours",
    "daily": "... of N days",
    "weekly": "... of N weeks, from Monday",
    "monthly": "... of N months",
    "yearly": "... of N years",
}

_DESCRIPTION: Final = """
Keep what the rules say and remove the other points: of each VM by itself, its backups and what live
sessions committed apart. A point stays where one rule keeps it. Hours, days, weeks, months and
years are those of the calendar in UTC; the newest point of each is kept, those without points do
not count. --keep-within counts back from the VM's newest point, not from now, so where backups have
stopped nothing goes by waiting.

Never removed, whatever the rules say:
  the newest point of a VM, and the newest one that a proof found good
  a point that is held (`backpoint hold`), or that a live session stands on
  a point younger than the repository's minimum age (`backpoint protect`)
  a point whose time is in the future, or that cannot be read
A point in the future counts for no rule. A point that was made after another and shows an earlier
moment (a clock was wrong, an old image was imported) takes no other's place, and gives up its own
only to points made after it.

Removing frees no space: `backpoint collect` does. Say --dry-run first.
"""
_EXAMPLES: Final = """
backpoint prune --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run
backpoint prune 'web*' db --keep-last 3 --keep-within 14d
backpoint prune --keep-yearly 5 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument(
        "vms", metavar="VM", nargs="*", help="names or shell patterns of VMs (default: all)"
    )
    for name, text in _COUNTED.items():
        parser.add_argument(f"--keep-{name}", metavar="N", type=_count, default=0, help=text)
    parser.add_argument(
        "--keep-within",
        metavar="TIME",
        default="0",
        help="all points not older than this before the newest, like 14d",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError without a rule or for a VM without points, and what a store raises."""
    from backpoint_repo.opening import open_from
    from backpoint_repo.retention.prune import chosen_vms, plan_prune

    rules = _rules(args)
    repository = open_from(args)
    vms = chosen_vms(repository.catalog.refresh(), args.vms)
    plan = plan_prune(repository, {vm: [rules] for vm in vms})
    prune_and_tell(repository, plan, dry_run=args.dry_run, as_json=args.json)
    return 0


def prune_and_tell(
    repository: Repository, plan: PrunePlan, *, dry_run: bool, as_json: bool
) -> None:
    """Carry a plan out, or only show it. Raises as `apply_prune`."""
    from backpoint_repo.commands.collect import ROOM
    from backpoint_repo.errors import StoreFull
    from backpoint_repo.progress import steps
    from backpoint_repo.retention.prune import apply_prune
    from backpoint_repo.retention.removal import Removal
    from backpoint_repo.terminal import warn

    for problem in plan.unreadable.values():
        warn(f"this point is left alone: {problem}")
    removal = Removal()
    if not dry_run:
        with steps("removing", as_json=as_json) as shown:
            shown.phase("points", len(plan.doomed))
            try:
                removal = apply_prune(repository, plan, shown.advance)
            except StoreFull as error:
                raise StoreFull(f"{error}; {ROOM}") from error
    if as_json:
        _print_record(plan, removal, dry_run=dry_run)
    elif dry_run:
        _print_table(plan.verdicts)
        _print_outlook(plan)
    else:
        _print_removed(plan, removal)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of points to keep")
    return int(text)


def _rules(args: argparse.Namespace) -> Rules:
    from backpoint_repo.retention.rules import Rules
    from backpoint_repo.sizes import parse_duration

    counts = {name: getattr(args, f"keep_{name}") for name in _COUNTED}
    return Rules(**counts, within_s=parse_duration(args.keep_within))


def _print_record(plan: PrunePlan, removal: Removal, *, dry_run: bool) -> None:
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.terminal import print_record

    removed = set(removal.removed)
    points: list[dict[str, Any]] = [
        {
            "id": verdict.point.point_id.hex(),
            "vm": verdict.point.vm,
            "point": format_time(verdict.point.time),
            "time": verdict.point.time,
            "branch": verdict.point.branch,
            "keep": verdict.keep,
            "reasons": list(verdict.reasons),
            "removed": verdict.point.point_id in removed,
        }
        for verdict in plan.verdicts
    ]
    print_record(
        {
            "type": "prune",
            "dry_run": dry_run,
            "points": points,
            "removed": len(removed),
            "spared": {point_id.hex(): why for point_id, why in removal.spared.items()},
            "unreadable": dict(plan.unreadable),
        }
    )


def _print_table(verdicts: Sequence[Verdict]) -> None:
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.terminal import Column, print_table

    words = ("vm", "point", "id", "", "why")
    rows = [
        (
            verdict.point.vm,
            format_time(verdict.point.time),
            verdict.point.point_id.hex()[:8],
            "keep" if verdict.keep else "remove",
            ", ".join((*verdict.reasons, *(("live session",) if verdict.point.branch else ()))),
        )
        for verdict in verdicts
    ]
    print_table([Column(word) for word in words], rows)


def _print_outlook(plan: PrunePlan) -> None:
    from backpoint_repo.sizes import counted
    from backpoint_repo.terminal import print_line

    doomed = len(plan.doomed)
    kept = len(plan.verdicts) - doomed
    print_line(f"{counted(doomed, 'point')} would be removed, {kept} kept")


def _print_removed(plan: PrunePlan, removal: Removal) -> None:
    from backpoint_repo.sizes import counted
    from backpoint_repo.terminal import print_line, warn

    removed = set(removal.removed)
    gone = [verdict for verdict in plan.verdicts if verdict.point.point_id in removed]
    if gone:
        _print_table(gone)
    for point in plan.doomed:
        if why := removal.spared.get(point.point_id):
            warn(f"{point.vm} {point.point_id.hex()[:8]} is not removed: {why}")
    advice = "; `backpoint collect` frees their space" if gone else ""
    print_line(
        f"{counted(len(gone), 'point')} removed, {len(plan.verdicts) - len(gone)} kept{advice}"
    )
