"""What `copy` and `tail` say while points are copied, and with which exit code it ends.

Each trouble is told once, and failures as they happen; records with --json. How copying is done is
not its business.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Final

from backpoint_repo.catalog import PointSummary
from backpoint_repo.copying.contract import Watch
from backpoint_repo.copying.copier import Copier, Fate, Outcome
from backpoint_repo.copying.report import BAD, Tally, outcome_record
from backpoint_repo.errors import RepositoryError
from backpoint_repo.point_record import point_name
from backpoint_repo.point_selector import format_time
from backpoint_repo.sizes import format_size
from backpoint_repo.terminal import Column, print_record, print_table, warn

FAILED: Final = 1
Row = tuple[str, ...]


class Telling:
    """args: `json` and `verify` of them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._json: bool = args.json
        self._verify: bool = args.verify
        self._said: set[str] = set()

    def unreadable(self, copier: Copier) -> None:
        """Points that are no candidates, because nobody can tell what they are."""
        for why in copier.unreadable.values():
            self.tell(f"this point is not copied: {why}")

    def tell(self, message: str) -> None:
        """A warning, unless it was said before."""
        if message not in self._said:
            self._said.add(message)
            warn(message)

    def bytes_to_pass(self, point: PointSummary) -> int:
        """Of its disks, each once, and once more to verify."""
        return 2 * point.size if self._verify else point.size

    def copied(
        self, copier: Copier, point: PointSummary, advance: Callable[[int], None]
    ) -> Outcome:
        """Copy one. advance: gets all of its bytes, whatever becomes of it. Raises as
        `Copier.copy`."""
        left = self.bytes_to_pass(point)

        def passed(size: int) -> None:
            nonlocal left
            left -= size
            advance(size)

        outcome = copier.copy(point, Watch(passed, self.tell))
        advance(left)
        for why in outcome.why:
            name = f"{point_name(point)} ({point.point_id.hex()[:8]})"
            self.tell(f"{name} {outcome.fate.value}: {why}")
        if self._json:
            print_record(outcome_record(outcome, verified=self._verify))
        return outcome


def exit_code(tally: Tally, copier: Copier) -> int:
    """0 all is there, 1 some points are damaged, 4 some could not be read for now."""
    if any(tally.fates[fate] for fate in BAD) or copier.unreadable:
        return FAILED
    return RepositoryError.exit_code if tally.fates[Fate.UNREACHED] else 0


def print_rows(rows: Iterable[Row]) -> None:
    """A table of what became of points."""
    words, numbers = ("vm", "point", "id", "copy"), ("read", "new", "stored")
    columns = [*map(Column, words), *(Column(word, right=True) for word in numbers)]
    print_table([*columns, Column("")], rows)


def outcome_row(outcome: Outcome) -> Row:
    """Its line in the table."""
    copy = outcome.copied.point if outcome.copied else None
    traffic = copy.traffic if copy else None
    return (
        outcome.point.vm,
        format_time(outcome.point.time),
        outcome.point.point_id.hex()[:8],
        copy.point_id.hex()[:8] if copy else "",
        format_size(traffic.read) if traffic else "",
        format_size(traffic.new) if traffic else "",
        format_size(traffic.stored) if traffic else "",
        outcome.fate.value,
    )
