"""What became of points that were to be copied, as JSON records, and summed up.

One place, so that `copy` and `tail` say the same. Knows no output stream.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from backpoint_repo.catalog import PointSummary
from backpoint_repo.copying.copier import Fate, Outcome
from backpoint_repo.point_record import origin_record
from backpoint_repo.point_selector import format_time

BAD = frozenset({Fate.DAMAGED, Fate.DIFFERS})


class Tally:
    """Of one run. read, new, stored: bytes, as `Traffic`."""

    def __init__(self, there: int = 0) -> None:
        """there: points that are in the destination already."""
        self.fates: Counter[Fate] = Counter({Fate.THERE: there})
        self.read = self.new = self.stored = 0

    def count(self, outcome: Outcome) -> None:
        """One more point."""
        self.fates[outcome.fate] += 1
        if outcome.copied is not None:
            traffic = outcome.copied.point.traffic
            self.read += traffic.read
            self.new += traffic.new
            self.stored += traffic.stored

    @property
    def copied(self) -> int:
        """Points that are in the destination now and were not before."""
        return self.fates[Fate.COPIED]

    @property
    def there(self) -> int:
        """Points that were there already."""
        return self.fates[Fate.THERE]

    @property
    def failed(self) -> int:
        """Points that are not there, and were to be."""
        return sum(self.fates[fate] for fate in (*BAD, Fate.UNREACHED))

    def record(self) -> dict[str, Any]:
        """Of a summary. Sizes in bytes."""
        return {
            "copied": self.copied,
            "there": self.there,
            "gone": self.fates[Fate.GONE],
            "failed": self.failed,
            "read": self.read,
            "new": self.new,
            "stored": self.stored,
        }


def outcome_record(outcome: Outcome, *, verified: bool) -> dict[str, Any]:
    """One line of `--json`. original: the id that was copied; id: of the copy, if there is one."""
    copied = outcome.copied
    record = {"type": "copied" if outcome.fate is Fate.COPIED else "not copied"}
    record |= planned_record(outcome.point)
    if copied is None:
        return {**record, "fate": outcome.fate.value, "why": list(outcome.why)}
    copy = copied.point
    return {
        **record,
        "id": copy.point_id.hex(),
        "origin": origin_record(copy.origin),
        "verbatim": copied.verbatim,
        "verified": verified and outcome.fate is Fate.COPIED,
        "read": copy.traffic.read,
        "new": copy.traffic.new,
        "stored": copy.traffic.stored,
        "duration_s": round(copy.duration_s, 3),
        "fate": outcome.fate.value,
        "why": list(outcome.why),
    }


def planned_record(point: PointSummary) -> dict[str, Any]:
    """What names a point that is to be copied."""
    return {
        "original": point.point_id.hex(),
        "vm": point.vm,
        "point": format_time(point.time),
        "time": point.time,
        "size": point.size,
    }
