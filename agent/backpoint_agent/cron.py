"""Cron expressions: when one is due, as Debian's cron reads it, daylight saving included.

Five fields in local time. A time of day that the clock skips is due when the clock has gone on; one
that it shows twice is due the first time; what has a star in its minutes or hours goes by real
hours. Knows no jobs. Moments are aware datetimes; those given back are in UTC, because Python
compares two datetimes of one zone by their clock's face, which daylight saving shows twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

_LOOK_BACKS: Final = tuple(timedelta(days=days) for days in (1 / 24, 1, 8, 32, 367, 1464, 2930))
"""How far back the last due moment is sought, nearest first. 29 February may be 8 years apart."""

_LONGEST: Final = 500


class BadCron(ValueError):
    """The text is no cron expression; the message follows the name of what has it."""


def check_cron(expression: str) -> None:
    """Raises BadCron where it is none, or never comes."""
    if len(expression) > _LONGEST:
        raise BadCron(f"is longer than {_LONGEST} characters")
    if len(expression.split()) != 5:
        raise BadCron("must have five fields: minute, hour, day of month, month, day of week")
    try:
        first = next(CronSim(expression, datetime(2024, 1, 1)), None)
    except CronSimError as error:
        raise BadCron(f"is no cron expression: {str(error).lower()}") from None
    if first is None:
        raise BadCron("never comes: no year has such a day")


def dues_after(expression: str, moment: datetime) -> Iterator[datetime]:
    """Every due moment later than `moment`, in order; `moment`'s zone is the local one."""
    last = moment
    for due in CronSim(expression, moment):
        found = due.astimezone(UTC)
        # Times of day that were skipped fall on one moment; one that is shown twice may, seen from
        # its second time, lie in the past.
        if found > last.astimezone(UTC):
            last = found
            yield found


def next_due(expression: str, moment: datetime) -> datetime:
    """The first due moment after `moment`."""
    return next(dues_after(expression, moment))


def last_due(expression: str, moment: datetime) -> datetime | None:
    """The latest due moment that is not after `moment`; None where eight years had none."""
    for back in _LOOK_BACKS:
        found = None
        for due in dues_after(expression, _earlier(moment, back)):
            if due > moment.astimezone(UTC):
                break
            found = due
        if found is not None:
            return found
    return None


def _earlier(moment: datetime, by: timedelta) -> datetime:
    return (moment.astimezone(UTC) - by).astimezone(moment.tzinfo)
