"""`backpoint hold`: keep one point, whatever the rules of `prune` say."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_repo.command_parser import describe
from backpoint_repo.commands.show import SELECTOR

HELP: Final = "keep one point, whatever prune is told"

_DESCRIPTION: Final = """
Hold a point: `backpoint prune` does not remove it until the hold ends or `backpoint unhold` drops
it. Holding it again replaces the time and the reason; what live sessions hold stays beside it.
`backpoint points` and `backpoint show` tell of holds.
"""
_EXAMPLES: Final = """
backpoint hold web01@2026-11-20 --why "before the migration"
backpoint hold web01@latest --until 90d
backpoint hold web01@latest --until 2027-06-30
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("point", metavar="VM@POINT", help=SELECTOR)
    parser.add_argument(
        "--until",
        metavar="TIME",
        help="when the hold ends: from now, like 30d, or a time (UTC); default: when it is dropped",
    )
    parser.add_argument("--why", metavar="TEXT", default="", help="a word for others")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError where the selector names no point or several, or the time is no later one,
    ObjectMissing where the point is about to go, and what a store raises."""
    from backpoint_repo.features import refuse_unknown_features
    from backpoint_repo.moment import parse_end
    from backpoint_repo.opening import open_from
    from backpoint_repo.point_hold import Hold, drop_hold, new_hand, put_hold, read_holds
    from backpoint_repo.point_record import hold_record, point_name, until_text
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.terminal import print_line, print_record

    repository = open_from(args)
    refuse_unknown_features(repository.sealed.store)
    until = None if args.until is None else parse_end(args.until, repository.clock())
    point = select_point(repository.catalog.refresh(), args.point)
    before = [hold for hold in read_holds(repository.sealed) if hold.point_id == point.point_id]
    why = args.why.encode("utf-8", "backslashreplace").decode()
    hold = Hold(point.point_id, new_hand(), why, repository.clock(), until)
    put_hold(repository.sealed, hold)
    # Only now: the point is held at every moment.
    for old in before:
        if old.by_hand:
            drop_hold(repository.sealed, old.point_id, old.holder)
    if args.json:
        print_record({"type": "hold", "id": point.point_id.hex(), **hold_record(hold)})
    else:
        print_line(f"{point_name(point)} is held {until_text(hold)}")
    return 0
