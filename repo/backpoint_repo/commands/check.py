"""`backpoint check`: is the repository whole, and what does any damage hurt?"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.check_report import CheckReport

HELP: Final = "examine the repository for damage"
DAMAGED: Final = 1

_DESCRIPTION: Final = """
Examine every object, every pack's directory and every point's tree: is each chunk that a point
needs in the index, and in a pack large enough to hold it? With --read-data also read, decrypt and
verify the stored data itself, all of it or a random share of the packs; that needs the owner's
passphrase, the rest does not. `backpoint scrub` does so bit by bit over weeks.

Damaged chunks are reported with the points and disk ranges they hurt, and marked, so that the next
backup stores them anew where the disk still has them.
"""
_EXAMPLES: Final = """
backpoint check
backpoint check --read-data=10%
"""
_EXIT_CODES: Final = """\
exit codes:
  0 clean   1 damaged   4 something could not be looked at, or is no repository
  2 wrong use   5 a key or passphrase is wrong or not enough   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    parser.add_argument(
        "--read-data",
        metavar="SHARE",
        nargs="?",
        const="100%",
        type=_share,
        help="also read and verify this share of the data, like 10%% (default: all)",
    )


def run(args: argparse.Namespace) -> int:
    """0 clean, 1 damaged, 4 where something could not be looked at. Raises what opening raises."""
    from backpoint_repo.check import check_repository
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.opening import open_from, require_owner
    from backpoint_repo.progress import steps

    repository = open_from(args)
    if args.read_data is not None:
        require_owner(repository, "reading data")
    with steps("checking", as_json=args.json) as shown:
        report = check_repository(repository, args.read_data, shown)
    _report(args, report)
    if report.damaged or report.hurt:
        return DAMAGED
    return 0 if report.clean else RepositoryError.exit_code


def _share(text: str) -> float:
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of the data; write it like 10%")
    return share


def _report(args: argparse.Namespace, report: CheckReport) -> None:
    from backpoint_repo.scrubbing.damage_text import (
        ages_text,
        print_advice,
        print_damage,
        print_notes,
    )
    from backpoint_repo.sizes import counted, format_size
    from backpoint_repo.terminal import print_line, print_record

    if args.json:
        print_record(_record(report))
        return
    print_notes(report.notes)
    print_damage(report.damaged, report.hurt, report.unreadable)
    print_advice(report.damaged, report.hurt, report.marked)
    if report.in_trash:
        waiting = counted(report.in_trash, "pack")
        print_line(f"{waiting} in trash; `backpoint collect` deletes what nobody uses any more")
    if ages := ages_text(report.ages):
        print_line(ages)
    examined = ", ".join(
        counted(count, thing)
        for count, thing in (
            (report.points, "point"),
            (report.packs, "pack"),
            (report.chunks, "chunk"),
        )
    )
    read = format_size(report.read_bytes)
    print_line(f"{examined} examined, {read} read: {_verdict(report)}")


def _verdict(report: CheckReport) -> str:
    if report.damaged or report.hurt:
        return "DAMAGED"
    return "clean" if report.clean else "COULD NOT CHECK EVERYTHING"


def _record(report: CheckReport) -> dict[str, Any]:
    from dataclasses import asdict

    from backpoint_repo.scrubbing.damage_text import damage_record

    record = asdict(report)
    del record["ages"]
    damage = damage_record(report.damaged, report.hurt, report.ages)
    return {"type": "check", "clean": report.clean, **record, **damage}
