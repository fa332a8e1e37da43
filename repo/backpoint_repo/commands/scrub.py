"""`backpoint scrub`: re-read all data over time, at a rate that disturbs nobody."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.scrubbing.scrub_report import ScrubReport

HELP: Final = "re-read all data over time to find rot"
DAMAGED: Final = 1

_DESCRIPTION: Final = """
Read packs that were not read for a while, in full, and verify what is in them; remember when that
was, so that the next run goes on where this one ended or was stopped. Run it every night with
--for, and all data is read every --every days. It blocks nobody and may run beside backups, mounts
and collections, several at once too.

With the owner's passphrase every chunk is opened and its content verified. The agent credential
finds rot as well, by the digests of what was stored, but not what somebody with such a credential
forged; what it has read is due again for the owner.

A copy that looks wrong is read once more. If it is wrong, it is marked, so that nothing is
deduplicated onto it and the next backup stores it anew, and listed with the points and disk ranges
that it hurts. What cannot be read now (an I/O error, no permission, no network) is told apart from
that: tried again at the end, and never marked.
"""
_EXAMPLES: Final = """
backpoint scrub
backpoint scrub --rate=50M/s --for=2h
backpoint scrub --every=90d
backpoint scrub --oldest-first --for=8h
"""
_EXIT_CODES: Final = """\
exit codes:
  0 what was read is good   1 damaged   4 something could not be read now, or is no repository
  2 wrong use   5 a key or passphrase is wrong   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    parser.add_argument(
        "--rate", metavar="BYTES/s", help="read no faster than this, like 50M/s (default: no limit)"
    )
    parser.add_argument(
        "--every",
        metavar="TIME",
        default="30d",
        help="read what was last read longer ago than this (default: 30d)",
    )
    parser.add_argument(
        "--oldest-first",
        action="store_true",
        help="read everything, what was never read first and then the oldest, due or not",
    )
    parser.add_argument(
        "--for",
        dest="for_time",
        metavar="TIME",
        help="begin no further pack after this time, like 2h (default: until nothing is due)",
    )


def run(args: argparse.Namespace) -> int:
    """0 good, 1 damaged, 4 where something could not be read now. Raises what opening raises."""
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.opening import open_from
    from backpoint_repo.progress import progress, steps
    from backpoint_repo.scrubbing.scrub import Scrub
    from backpoint_repo.scrubbing.scrub_report import ScrubTerms
    from backpoint_repo.sizes import parse_duration

    terms = ScrubTerms(
        every_s=parse_duration(args.every),
        oldest_first=args.oldest_first,
        rate=None if args.rate is None else _rate(args.rate),
        for_s=None if args.for_time is None else parse_duration(args.for_time),
    )
    scrub = Scrub(open_from(args), terms)
    with progress("scrubbing", scrub.planned_bytes, as_json=args.json) as advance:
        scrub.read(advance)
    with steps("looking whom it hurts:", as_json=args.json) as shown:
        report = scrub.report(shown)
    _report(args, report)
    if report.damaged or report.hurt:
        return DAMAGED
    return RepositoryError.exit_code if report.unreadable else 0


def _rate(text: str) -> int:
    """Bytes a second. Raises UsageError."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.sizes import parse_size

    rate = parse_size(text.removesuffix("/s"))
    if rate < 1:
        raise UsageError(f"{text!r} is no rate; write it like 50M/s")
    return rate


def _report(args: argparse.Namespace, report: ScrubReport) -> None:
    from backpoint_repo.scrubbing.damage_text import (
        ages_text,
        damage_record,
        print_advice,
        print_damage,
        print_notes,
    )
    from backpoint_repo.sizes import counted, format_size
    from backpoint_repo.terminal import print_line, print_record

    if args.json:
        record = {
            "type": "scrub",
            "packs": report.packs,
            "bytes": report.read_bytes,
            "unreadable": list(report.unreadable),
            "marked": report.marked,
            "due": report.due,
            "notes": list(report.notes),
        }
        print_record(record | damage_record(report.damaged, report.hurt, report.ages))
        return
    print_notes(report.notes)
    print_damage(report.damaged, report.hurt, report.unreadable)
    print_advice(report.damaged, report.hurt, report.marked)
    if ages := ages_text(report.ages):
        print_line(ages)
    left = "is" if report.due == 1 else "are"
    due = f"{counted(report.due, 'pack')} {left} still due" if report.due else "nothing more is due"
    print_line(f"{counted(report.packs, 'pack')}, {format_size(report.read_bytes)} read; {due}")
