"""`backpoint points`: what there is to restore."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.catalog import PointSummary
    from backpoint_repo.point_hold import Hold
    from backpoint_repo.point_proof import Unreadable
    from backpoint_repo.proof import Proof
    from backpoint_repo.repository import Repository
    from backpoint_repo.sealed_store import SealedStore

HELP: Final = "list restore points"

_DESCRIPTION: Final = """
List all restore points, or those of one VM, by VM and time (UTC). Sizes are those of all disks of a
point together: their size, what of it is not empty, and what the point added to the repository.
HELD says that `backpoint prune` does not remove the point, and until when. The last column is the
newest proof: the level that was proved and when, or which one FAILED.
A point that cannot be read is reported on stderr; the others are listed all the same.
"""
_EXAMPLES: Final = """
backpoint points
backpoint points web01 --json
backpoint points --unproved
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("vm", metavar="VM", nargs="?", help="only points of this VM")
    parser.add_argument(
        "--unproved",
        action="store_true",
        help="only points that have no proof, or whose newest one is not good",
    )


def run(args: argparse.Namespace) -> int:
    """Raises UsageError for a VM without points, and what opening and a store raise."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.opening import open_from
    from backpoint_repo.point_record import summary_record
    from backpoint_repo.proof import Proof
    from backpoint_repo.terminal import print_record, say, warn

    repository = open_from(args)
    catalog = repository.catalog
    points = catalog.refresh()
    for broken in catalog.broken.values():
        warn(broken)
    if args.vm is not None:
        points = [point for point in points if point.vm == args.vm]
        if not points:
            raise UsageError(f"no points of a VM named {args.vm!r}")
    proofs = _proofs(repository.sealed, points)
    if args.unproved:
        good = {own for own, proof in proofs.items() if isinstance(proof, Proof) and proof.ok}
        points = [point for point in points if point.point_id not in good]
    holds = _holds(repository)
    if args.json:
        records = [
            summary_record(point, proofs.get(point.point_id), holds.get(point.point_id, ()))
            for point in points
        ]
        print_record({"points": records, "unreadable": dict(catalog.broken)})
    elif points:
        _print_table(points, proofs, holds)
    else:
        say("no unproved points" if args.unproved else "no points yet")
    return 0


def _proofs(sealed: SealedStore, points: list[PointSummary]) -> dict[bytes, Proof | Unreadable]:
    """The newest of each point; what cannot be read is told, and the points are listed anyway."""
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.point_proof import Unreadable, newest_proofs
    from backpoint_repo.terminal import warn

    try:
        proofs = newest_proofs(sealed, {point.point_id for point in points})
    except RepositoryError as error:
        warn(f"proofs cannot be read: {error}")
        return {}
    for proof in proofs.values():
        if isinstance(proof, Unreadable):
            warn(f"a proof cannot be read: {proof.why}")
    return proofs


def _holds(repository: Repository) -> dict[bytes, list[Hold]]:
    """Those that hold now; where one cannot be read, points are listed all the same."""
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.point_hold import read_holds
    from backpoint_repo.terminal import warn

    found: dict[bytes, list[Hold]] = {}
    try:
        holds = read_holds(repository.sealed)
    except RepositoryError as error:
        warn(f"not all holds can be read; prune spares such points: {error}")
        return {}
    for hold in holds:
        if hold.holds_at(repository.clock()):
            found.setdefault(hold.point_id, []).append(hold)
    return found


def _print_table(
    points: list[PointSummary],
    proofs: dict[bytes, Proof | Unreadable],
    holds: dict[bytes, list[Hold]],
) -> None:
    from backpoint_repo.point_record import holds_cell, proof_cell
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.sizes import format_size
    from backpoint_repo.terminal import Column, print_table

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
            holds_cell(holds.get(point.point_id, ())),
            proof_cell(proofs.get(point.point_id)),
        )
        for point in points
    ]
    print_table([*columns, Column("held"), Column("proof")], rows)
