"""What a user wants to keep: so many of each kind of calendar bucket, and all of the last days.

Decides which bucket a moment falls into, by the calendar in UTC: an hour, a day, an ISO week (from
Monday), a month or a year. Which points fill the buckets is for `plan.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final

from backpoint_repo.errors import UsageError

Bucket = Callable[[float], int]
"""The number of the bucket of a moment, seconds since 1970; later moments have no lower one."""

_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_MONDAY: Final = 3
"""1970 began on a Thursday: three days after a Monday."""


@dataclass(frozen=True)
class Rules:
    """How many buckets keep their newest point; 0: the rule is not there. last: so many points.
    within_s: also all that are at most so many seconds older than the newest.

    Raises UsageError where no rule is there, or one is negative.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within_s: float = 0.0

    def __post_init__(self) -> None:
        values = [getattr(self, field.name) for field in fields(self)]
        if not all(value >= 0 for value in values):
            raise UsageError("what to keep cannot be less than nothing")
        if not any(values):
            raise UsageError("say what to keep: --keep-last, --keep-daily and so on, at least one")

    @property
    def buckets(self) -> Iterator[tuple[str, int, Bucket]]:
        """Of each calendar rule that is there: its name, how many are kept, and its bucket."""
        for name, bucket in _BUCKETS.items():
            if wanted := getattr(self, name):
                yield name, wanted, bucket


def _month(seconds: float) -> int:
    moment = datetime.fromtimestamp(seconds, UTC)
    return 12 * moment.year + moment.month


_BUCKETS: Final[dict[str, Bucket]] = {
    "hourly": lambda seconds: int(seconds // _HOUR_S),
    "daily": lambda seconds: int(seconds // _DAY_S),
    "weekly": lambda seconds: int((seconds // _DAY_S + _MONDAY) // 7),
    "monthly": _month,
    "yearly": lambda seconds: datetime.fromtimestamp(seconds, UTC).year,
}
