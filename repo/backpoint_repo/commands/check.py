"""`backpoint check`: is the repository whole, and what does any damage hurt?"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.check_report import CheckReport, HurtRange

HELP: Final = "examine the repository for damage"
DAMAGED: Final = 1
_SHOWN_MAX: Final = 50

_DESCRIPTION: Final = """
Examine every object, every pack's directory and every point's tree: is each chunk that a point
needs in the index, and in a pack large enough to hold it? With --read-data also read, decrypt and
verify the stored data itself, all of it or a random share of the packs; that needs the owner's
passphrase, the rest does not.

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
    from backpoint_repo.sizes import format_size
    from backpoint_repo.terminal import print_line, print_record, warn

    if args.json:
        print_record(_record(report))
        return
    for note in report.notes:
        warn(note)
    lines = [f"damaged: {found.key}: {found.problem}" for found in report.damaged]
    lines += [f"hurt: {_hurt_text(hurt)}" for hurt in report.hurt]
    lines += [f"could not look at: {what}" for what in report.unreadable]
    for line in lines[:_SHOWN_MAX]:
        print_line(line)
    if len(lines) > _SHOWN_MAX:
        print_line(f"... and {len(lines) - _SHOWN_MAX} more; --json lists all")
    if report.marked:
        print_line(f"{report.marked} damaged chunks are marked: the next backup stores them anew")
    print_line(
        f"{report.points} points, {report.packs} packs, {report.chunks} chunks examined, "
        f"{format_size(report.read_bytes)} read: {_verdict(report)}"
    )


def _verdict(report: CheckReport) -> str:
    if report.damaged or report.hurt:
        return "DAMAGED"
    return "clean" if report.clean else "COULD NOT CHECK EVERYTHING"


def _hurt_text(hurt: HurtRange) -> str:
    from backpoint_repo.point_selector import format_time

    point = f"{hurt.vm}@{format_time(hurt.time)} ({hurt.point_id.hex()[:8]})"
    bytes_ = f"bytes {hurt.offset} to {hurt.offset + hurt.length}"
    return f"{point} {hurt.disk}, {bytes_}: {hurt.problem}"


def _record(report: CheckReport) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(report)
    for hurt in record["hurt"]:
        hurt["point_id"] = hurt["point_id"].hex()
    return {"type": "check", "clean": report.clean, **record}
