"""The machine's own time zone with all its past and future changes of the clock.

`datetime.astimezone()` gives an offset that is good for one moment only, and zoneinfo wants a name,
which neither /etc/localtime nor a POSIX `TZ` has. So the C library is asked, moment by moment; what
it says is what cron and the user's watch say.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo


class LocalZone(tzinfo):
    """A zone for aware datetimes whose arithmetic crosses daylight saving."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """East of Greenwich; None without a moment."""
        return None if moment is None else _known(moment).utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Not told: nothing here needs it."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """As the C library calls it: "CEST"."""
        return None if moment is None else _known(moment).tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """moment: this zone's, its clock showing UTC."""
        there = moment.replace(tzinfo=UTC).astimezone()
        first = there.replace(tzinfo=self, fold=0)
        # Where the clock shows a time twice, its first time has another offset.
        return first if first.utcoffset() == there.utcoffset() else first.replace(fold=1)


def _known(moment: datetime) -> datetime:
    """The moment with the offset that is in force at it."""
    return moment.replace(tzinfo=None).astimezone()


def now() -> datetime:
    """This moment, in the machine's zone."""
    return datetime.now(LocalZone())
