"""`backpoint copy`: the points that another repository has not yet."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import OPENS_REPOSITORY, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpoint_repo.catalog import PointSummary
    from backpoint_repo.copying.copier import Copier
    from backpoint_repo.copying.report import Tally

HELP: Final = "copy restore points to another repository"

_DESCRIPTION: Final = """
Copy the restore points that REPO2 has not yet; the repository there must have been made by `init`.
Only data that is not stored there is written, wherever it came from, and of a point whose
predecessor is there only what differs from that one is read. Both repositories stay in use: others
may back up, mount, prune and collect meanwhile.

Where REPO2 has keys of its own, data is read, cut and sealed anew as it is used there: that needs
the owner's passphrase of the source; of REPO2 an agent credential will do, which may lack the right
to delete. Where it has the same keys (`init --like`), sealed data is copied as it is, and agent
credentials will do for both.

A copy has an id of its own and all else of the original: time, label, configuration, what the agent
recorded, and its repository and id (`backpoint show`), so that a point is never copied twice,
whichever way it goes. Holds and proofs are not copied. Interrupted, a copy leaves whole points
only, the oldest of each VM first; the next run goes on from there and finds again what was stored
of the point under way.

With --media REPO2 is a new folder that is written once, one file after the other, and becomes a
repository for immutable media (a disc image, a sealed disk) with its own index inside: mounted read
only it is used like any other. A missing or empty folder gets the keys of the source; one that
`init` has just made keeps its own.

With --verify each copy is read back and compared with the original, and removed again if it
differs; that needs the owner's passphrase of REPO2, too, where keys differ. What is there already
is not compared, nor is a copy that an interrupted run did not come to compare: `backpoint -r REPO2
check --read-data` reads all that is there.
"""
_EXAMPLES: Final = """
backpoint -r /srv/backup copy --to s3://bucket/offsite
backpoint copy --to /mnt/disk2/repo 'web*' db --since 2026-11-01 --verify
backpoint copy --to /mnt/disk2/repo --dry-run
backpoint copy --to /srv/disc --media --since 2026-11-01
"""
TO_ENVIRONMENT: Final = """\
  BACKPOINT_TO_PASSPHRASE, BACKPOINT_TO_PASSPHRASE_FILE, BACKPOINT_TO_PASSPHRASE_COMMAND,
  BACKPOINT_TO_CREDENTIAL       likewise, of REPO2; without any the same as for the source
"""
_EXIT_CODES: Final = """\
exit codes:
  0 all that was to be copied is there
  1 some points are damaged, or their copies differ; all others are there
  4 a repository failed, or some points could not be read for now
  2 wrong use   5 a key or passphrase is wrong or not enough   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=OPENS_REPOSITORY + TO_ENVIRONMENT,
        exit_codes=_EXIT_CODES,
    )
    parser.add_argument(
        "vms", metavar="VM", nargs="*", help="names or shell patterns of VMs (default: all)"
    )
    parser.add_argument("--to", metavar="REPO2", required=True, help="the repository to copy to")
    parser.add_argument(
        "--since", metavar="T", help="only points of this moment and later, like 2026-11-20"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read each copy back and compare it with its original"
    )
    parser.add_argument(
        "--media", action="store_true", help="REPO2 is a new folder for immutable media"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be copied")


def run(args: argparse.Namespace) -> int:
    """0 all is there, 1 some points are damaged, 4 some could not be read. Raises UsageError,
    KeyFault and what opening and a store raise."""
    from backpoint_repo.moment import parse_moment

    since = 0.0 if args.since is None else parse_moment(args.since)
    if args.media:
        return _onto_media(args, since)
    return _copy(args, opened_copier(args, verify=args.verify), since)


def _onto_media(args: argparse.Namespace, since: float) -> int:
    """As `run`. What could be copied is whole, whatever could not."""
    from pathlib import Path

    from backpoint_repo.copying.copier import Copier
    from backpoint_repo.copying.media import Media
    from backpoint_repo.errors import NotARepository, UsageError
    from backpoint_repo.opening import open_from, open_other
    from backpoint_repo.process_tuning import tune_for_chunks
    from backpoint_repo.store.place import is_address

    if is_address(args.to):
        raise UsageError(f"media are made in a folder: {args.to} is none")
    source, folder = open_from(args), Path(args.to)
    try:
        like, fresh = open_other(args, args.to), False
    except NotARepository:
        like, fresh = source, True
    tune_for_chunks()
    with Media(like, folder, fresh=fresh) as media:
        code = _copy(args, Copier(source, media.repository, verify=args.verify), since)
        if not args.dry_run:
            media.finish()
    return code


def _copy(args: argparse.Namespace, copier: Copier, since: float) -> int:
    from backpoint_repo.copying.plan import count_there, plan_missing
    from backpoint_repo.copying.report import Tally
    from backpoint_repo.copying.telling import Telling, exit_code, outcome_row
    from backpoint_repo.progress import progress
    from backpoint_repo.retention.prune import chosen_vms

    began = time.monotonic()
    copier.look()
    vms = chosen_vms(copier.source.points, args.vms)
    plan = plan_missing(copier.source, copier.target, vms, since)
    if args.dry_run:
        _show(args, plan)
        return 0
    tally = Tally(count_there(copier.source, copier.target, vms, since))
    telling = Telling(args)
    telling.unreadable(copier)
    total = sum(map(telling.bytes_to_pass, plan))
    rows = []
    with progress(f"copying to {args.to}", total, as_json=args.json) as advance:
        for point in plan:
            outcome = telling.copied(copier, point, advance)
            tally.count(outcome)
            rows.append(() if args.json else outcome_row(outcome))
    _report(args, rows, tally, time.monotonic() - began)
    return exit_code(tally, copier)


def opened_copier(args: argparse.Namespace, *, verify: bool) -> Copier:
    """Both repositories, opened: -r and --to. Raises what opening raises, UsageError, KeyFault."""
    from backpoint_repo.copying.copier import Copier
    from backpoint_repo.errors import NotARepository
    from backpoint_repo.opening import open_from, open_other
    from backpoint_repo.process_tuning import tune_for_chunks

    source = open_from(args)
    try:
        target = open_other(args, args.to)
    except NotARepository:
        raise NotARepository(
            f"there is no repository at {args.to} to copy to; make one with "
            f"`backpoint -r {args.to} init`"
        ) from None
    tune_for_chunks()
    return Copier(source, target, verify=verify)


def _show(args: argparse.Namespace, plan: Sequence[PointSummary]) -> None:
    """What a run without --dry-run would copy."""
    from backpoint_repo.copying.report import planned_record
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.sizes import counted, format_size
    from backpoint_repo.terminal import Column, print_line, print_record, print_table

    if args.json:
        print_record({"type": "copy", "dry_run": True, "points": [*map(planned_record, plan)]})
        return
    if plan:
        columns = [*map(Column, ("vm", "point", "id")), Column("size", right=True)]
        rows = [
            (p.vm, format_time(p.time), p.point_id.hex()[:8], format_size(p.size)) for p in plan
        ]
        print_table(columns, rows)
    total = format_size(sum(point.size for point in plan))
    print_line(f"{counted(len(plan), 'point')} would be copied, of {total} in all")


def _report(
    args: argparse.Namespace, rows: Sequence[tuple[str, ...]], tally: Tally, duration_s: float
) -> None:
    from backpoint_repo.copying.telling import print_rows
    from backpoint_repo.sizes import counted, format_duration, format_size
    from backpoint_repo.terminal import print_line, print_record

    if args.json:
        took = {"duration_s": round(duration_s, 3)}
        print_record({"type": "copy", "dry_run": False, **tally.record(), **took})
        return
    if rows:
        print_rows(rows)
    failed = f", {tally.failed} failed" if tally.failed else ""
    print_line(
        f"{counted(tally.copied, 'point')} copied, {tally.there} there already{failed}, "
        f"read {format_size(tally.read)}, "
        f"new {format_size(tally.new)}, stored {format_size(tally.stored)}, "
        f"in {format_duration(duration_s)}"
    )
