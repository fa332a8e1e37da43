"""`backpoint collect`: gives back the space of what no point needs, while others go on working."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe
from backpoint_repo.errors import StoreFull, UsageError
from backpoint_repo.sizes import parse_duration, parse_size

if TYPE_CHECKING:
    from backpoint_repo.collecting.plan import CollectionPlan
    from backpoint_repo.collecting.report import CollectReport
    from backpoint_repo.repository import Repository

HELP: Final = "give back the space of what no point needs"
DAMAGED: Final = 1
ROOM: Final = (
    "giving space back needs a little itself: move something else away, or delete the objects in "
    "readings/ and catalog/ of the repository, which only save time"
)

_DESCRIPTION: Final = """
Delete packs that no point needs any more, and compact packs of which little is needed. Backups,
mounts, live sessions and other collectors may run at any time: none of them is stopped or waited
for longer than --wait. What somebody still uses is told with who it is, stays, and goes the next
time. May be interrupted at any moment and run again; the agent credential is enough, if the store
lets it delete.

First points must go: see `backpoint prune`. Sessions that have shown no sign of life for ten
minutes are ended (see `backpoint leases`).
"""
_EXAMPLES: Final = """
backpoint collect --dry-run
backpoint collect
backpoint collect --max-repack 10G --wait 10m
"""
_EXIT_CODES: Final = """\
exit codes:
  0 done, or waiting for others   1 damaged data is in the way
  4 a point cannot be read, so nothing may be deleted; or the repository cannot be used
  2 wrong use   5 a key or passphrase is wrong   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    parser.add_argument(
        "--max-repack",
        metavar="SIZE",
        type=_size,
        help="copy at most so much to compact packs, the most wasteful first (default: no limit; "
        "until they are deleted, what is copied is there twice)",
    )
    parser.add_argument(
        "--wait",
        metavar="TIME",
        type=_duration,
        default=180.0,
        help="wait so long for others to see what is about to be deleted (default: 3m)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write and delete nothing; show what would go, what stays, and why",
    )


def run(args: argparse.Namespace) -> int:
    """0 done, 1 where damage is in the way, 4 where nothing may be deleted."""
    import time

    from backpoint_repo.collecting.collect import collect
    from backpoint_repo.collecting.report import CollectTerms
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.opening import open_from
    from backpoint_repo.progress import steps

    repository = open_from(args)
    terms = CollectTerms(args.max_repack, args.wait, args.dry_run)
    try:
        with steps("collecting", as_json=args.json) as shown:
            report = collect(repository, terms, shown, time.sleep)
    except StoreFull as error:
        raise StoreFull(f"{error}; {ROOM}") from error
    if args.json:
        from backpoint_repo.terminal import print_record

        print_record(_record(report, args.dry_run))
    else:
        _tell(report, args.dry_run)
        if report.freed_packs or report.copied:
            _tell_parity(repository)
    if report.stopped:
        return RepositoryError.exit_code
    return DAMAGED if report.damaged else 0


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _tell(report: CollectReport, dry_run: bool) -> None:
    from backpoint_repo.sizes import counted, format_size
    from backpoint_repo.terminal import print_line, warn

    for note in (*report.notes, *(f"ended, no sign of life: {who}" for who in report.revoked)):
        warn(note)
    if dry_run and report.plan is not None:
        _print_plan(report.plan)
    elif not dry_run:
        print_line(
            f"{counted(report.freed_packs, 'pack')} deleted, {format_size(report.freed)}; "
            f"{format_size(report.copied)} copied to compact: {_balance(report)}"
        )
    for pinned in report.pinned:
        print_line(f"pinned: {format_size(pinned.size)} of removed points, by {pinned.by}")
    for waiting in report.waiting:
        by = ", ".join(waiting.by) or "the next collection"
        packs = f"{counted(waiting.packs, 'pack')}, {format_size(waiting.size)}"
        print_line(
            f"waiting: {packs}, for {by}; end it, or run collect again when it has gone on (see "
            "`backpoint leases`)"
            if waiting.by
            else f"in trash: {packs}, for {by}"
        )
    for line in report.damaged:
        print_line(f"damaged: {line}")
    for line in report.stopped:
        print_line(f"stopped: {line}")


def _balance(report: CollectReport) -> str:
    """What is left of what was deleted. Copies come first, and go on counting twice for as long as
    somebody is waited for."""
    from backpoint_repo.sizes import format_size

    less = report.freed - report.copied
    return f"{format_size(less)} freed" if less >= 0 else f"{format_size(-less)} more for a while"


def _tell_parity(repository: Repository) -> None:
    """Spares that stood for what is gone stand for less now, and what is new has none."""
    from backpoint_repo.policy import read_policy
    from backpoint_repo.terminal import print_line

    if read_policy(repository.sealed).parity is not None:
        print_line(
            "now run `backpoint parity`: some packs have gone, and new ones may have no spares"
        )


def _print_plan(plan: CollectionPlan) -> None:
    """What becomes of packs, those with the same fate and reason in one line."""
    from backpoint_repo.sizes import format_size
    from backpoint_repo.terminal import Column, print_line, print_table

    columns = ("packs", "bytes"), ("live", "freed")
    table = [Column("what"), *(Column(name, right=True) for pair in columns for name in pair)]
    rows = [
        (
            fate["what"],
            str(fate["packs"]),
            format_size(fate["size"]),
            format_size(fate["live"]),
            format_size(fate["freed"]),
            fate["reason"],
        )
        for fate in _fates(plan)
    ]
    print_table([*table, Column("why")], rows)
    print_line(
        f"{format_size(plan.freed)} would be freed, {format_size(plan.copied)} copied for it"
    )


def _fates(plan: CollectionPlan) -> list[dict[str, Any]]:
    """Packs by fate and reason, in the order of the plan; sizes in bytes."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for what, verdicts in (("delete", plan.dead), ("compact", plan.repack), ("keep", plan.kept)):
        for verdict in verdicts:
            fate = found.setdefault(
                (what, verdict.reason),
                {
                    "what": what,
                    "reason": verdict.reason,
                    **dict.fromkeys(("packs", "size", "live", "freed"), 0),
                },
            )
            usage = verdict.usage
            fate["packs"] += 1
            fate["size"] += usage.size
            fate["live"] += usage.live
            fate["freed"] += 0 if what == "keep" else usage.size
            fate["freed"] -= usage.live if what == "compact" else 0
    return list(found.values())


def _record(report: CollectReport, dry_run: bool) -> dict[str, Any]:
    return {
        "type": "collect",
        "dry_run": dry_run,
        "freed_packs": report.freed_packs,
        "freed": report.freed,
        "copied": report.copied,
        "net": report.freed - report.copied,
        "epoch": report.epoch,
        "trashed_packs": report.trashed_packs,
        "trashed": report.trashed,
        "dropped_notes": report.dropped_notes,
        "plan": [] if report.plan is None else _fates(report.plan),
        "waiting": [
            {"epoch": one.epoch, "packs": one.packs, "size": one.size, "by": list(one.by)}
            for one in report.waiting
        ],
        "pinned": [{"size": one.size, "by": one.by} for one in report.pinned],
        "revoked": list(report.revoked),
        "damaged": list(report.damaged),
        "stopped": list(report.stopped),
        "notes": list(report.notes),
    }
