"""When a backup window is open: its strings made into moments of one zone.

A window over midnight belongs to the day it begins on. Where the clock skips a window's start or
end, the moment after the gap counts; where it shows it twice, the first time. Knows no jobs.
Moments are aware; those given back are in UTC (see `cron.py`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from backpoint_agent.settings.job import WEEKDAYS, Window

_DAY = timedelta(days=1)


def window_end(window: Window, moment: datetime) -> datetime | None:
    """When the window that is open at `moment` closes; None where it is closed.

    moment: its zone is the local one. The start belongs to the window, the end does not.
    """
    today = moment.date()
    for day in (today - _DAY, today):
        opens, closes = _moments(window, day, _zone(moment))
        if _on(window, day) and opens <= moment.astimezone(UTC) < closes:
            return closes
    return None


def next_opening(window: Window, moment: datetime) -> datetime:
    """When the window opens next, not before `moment`."""
    day = moment.date() - _DAY
    while True:
        opens, closes = _moments(window, day, _zone(moment))
        if _on(window, day) and moment.astimezone(UTC) <= opens < closes:
            return opens
        day += _DAY


def remaining_s(window: Window | None, moment: datetime) -> float | None:
    """Seconds until the open window closes, 0 where it is closed; None where there is no window."""
    if window is None:
        return None
    end = window_end(window, moment)
    return 0.0 if end is None else (end - moment.astimezone(UTC)).total_seconds()


def _on(window: Window, day: date) -> bool:
    return WEEKDAYS[day.weekday()] in window.days


def _moments(window: Window, day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
    last = day if start < end else day + _DAY
    return _moment(day, start, zone), _moment(last, end, zone)


def _moment(day: date, clock: time, zone: tzinfo) -> datetime:
    shown = datetime.combine(day, clock)
    # A gap is an hour, and once, in Samoa, a day; window times are whole minutes, and so are gaps.
    while True:
        found = shown.replace(tzinfo=zone).astimezone(UTC)
        if found.astimezone(zone).replace(tzinfo=None, fold=0) == shown:
            return found
        shown += timedelta(minutes=1)


def _zone(moment: datetime) -> tzinfo:
    assert moment.tzinfo is not None, "a moment without a zone is none"
    return moment.tzinfo
