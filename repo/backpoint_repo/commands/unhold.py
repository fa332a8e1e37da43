"""`backpoint unhold`: drop the hold that `backpoint hold` put on a point."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_repo.command_parser import describe
from backpoint_repo.commands.show import SELECTOR

HELP: Final = "let prune remove a held point again"

_DESCRIPTION: Final = """
Drop what `backpoint hold` put on a point. What live sessions hold stays until they end, and is
told.
"""
_EXAMPLES: Final = """
backpoint unhold web01@2026-11-20
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("point", metavar="VM@POINT", help=SELECTOR)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError where the selector names no point or several, or nobody holds it by hand,
    and what a store raises."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.features import refuse_unknown_features
    from backpoint_repo.opening import open_from
    from backpoint_repo.point_hold import drop_hold, read_holds
    from backpoint_repo.point_record import hold_record, point_name
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.terminal import print_line, print_record, warn

    repository = open_from(args)
    refuse_unknown_features(repository.sealed.store)
    point = select_point(repository.catalog.refresh(), args.point)
    holds = [hold for hold in read_holds(repository.sealed) if hold.point_id == point.point_id]
    left = [hold for hold in holds if not hold.by_hand]
    for hold in left:
        warn(f"{point_name(point)} is held by something else, too: {hold.why or hold.holder}")
    if len(left) == len(holds):
        raise UsageError(f"nobody has put a hold on {point_name(point)} by hand")
    for hold in holds:
        if hold.by_hand:
            drop_hold(repository.sealed, hold.point_id, hold.holder)
    if args.json:
        records = [hold_record(hold) for hold in left]
        print_record({"type": "unhold", "id": point.point_id.hex(), "holds": records})
    else:
        print_line(f"{point_name(point)} is not held by hand any more")
    return 0
