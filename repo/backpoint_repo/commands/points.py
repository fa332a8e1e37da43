"""`backpoint points`: what there is to restore."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_repo.command_parser import describe

HELP: Final = "list restore points"

_DESCRIPTION: Final = """
List all restore points, or those of one VM, by VM and time (UTC). Sizes are those of all disks of a
point together: their size, what of it is not empty, and what the point added to the repository.
A point that cannot be read is reported on stderr; the others are listed all the same.
"""
_EXAMPLES: Final = """
backpoint points
backpoint points web01 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("vm", metavar="VM", nargs="?", help="only points of this VM")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError for a VM without points, and what opening and a store raise."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.opening import open_from
    from backpoint_repo.point_record import summary_record
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.sizes import format_size
    from backpoint_repo.terminal import Column, print_record, print_table, say, warn

    catalog = open_from(args).catalog
    points = catalog.refresh()
    for broken in catalog.broken.values():
        warn(broken)
    if args.vm is not None:
        points = [point for point in points if point.vm == args.vm]
        if not points:
            raise UsageError(f"no points of a VM named {args.vm!r}")
    if args.json:
        records = [summary_record(point) for point in points]
        print_record({"points": records, "unreadable": dict(catalog.broken)})
        return 0
    if not points:
        say("no points yet")
        return 0
    words = ("point", "id", "vm", "label")
    numbers = ("disks", "size", "allocated", "stored", "warnings")
    columns = [Column(word) for word in words] + [Column(word, right=True) for word in numbers]
    rows = [
        (
            format_time(point.time),
            point.point_id.hex()[:8],
            point.vm,
            point.label,
            str(point.disks),
            format_size(point.size),
            format_size(point.allocated),
            format_size(point.stored),
            str(point.warnings or ""),
        )
        for point in points
    ]
    print_table(columns, rows)
    return 0
