"""Backup windows against the clock's face on ordinary days, and by hand where the clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.settings.job import WEEKDAYS, Weekday
from backpoint_agent.settings.model import Window
from backpoint_agent.window import next_opening, remaining_s, window_end

BERLIN = ZoneInfo("Europe/Berlin")
SPRING = date(2026, 3, 29)  # 02:00 CET becomes 03:00 CEST
AUTUMN = date(2026, 10, 25)  # 03:00 CEST becomes 02:00 CET

TIMES = st.times().map(lambda clock: f"{clock:%H:%M}")
WINDOWS = st.builds(
    lambda times, days: Window(start=times[0], end=times[1], days=tuple(days)),
    st.lists(TIMES, min_size=2, max_size=2, unique=True),
    st.sets(st.sampled_from(WEEKDAYS), min_size=1),
)
MOMENTS = st.datetimes(
    min_value=datetime(2026, 1, 1),
    max_value=datetime(2027, 12, 31),
    timezones=st.just(BERLIN),
    allow_imaginary=False,
)


def _on_face(window: Window, moment: datetime) -> bool:
    """Whether the window is open by what clock and calendar show; wrong where the clock changes."""
    face = f"{moment:%H:%M}"
    begun = moment.date()
    if window.start < window.end:
        inside = window.start <= face < window.end
    else:
        inside = face >= window.start or face < window.end
        if face < window.end:
            begun -= timedelta(days=1)
    return inside and WEEKDAYS[begun.weekday()] in window.days


def _offset_is_steady(moment: datetime) -> bool:
    around = (moment + timedelta(days=days) for days in (-2, 0, 2))
    return len({day.utcoffset() for day in around}) == 1


@given(WINDOWS, MOMENTS.filter(_offset_is_steady))
def test_open_when_the_clock_says_so(window: Window, moment: datetime) -> None:
    """Over midnight or not, on the days it begins on."""
    assert (window_end(window, moment) is not None) == _on_face(window, moment)


@given(WINDOWS, MOMENTS, st.integers(min_value=0, max_value=999))
def test_stays_open_until_its_end(window: Window, moment: datetime, thousandth: int) -> None:
    """Every moment up to the end has the same end, whatever the clock does; the end is outside."""
    end = window_end(window, moment)
    if end is None:
        assert remaining_s(window, moment) == 0
        return
    left = end - moment.astimezone(UTC)
    assert timedelta(0) < left <= timedelta(hours=25)
    assert remaining_s(window, moment) == left.total_seconds()
    between = (moment.astimezone(UTC) + left * thousandth / 1000).astimezone(BERLIN)
    assert window_end(window, between) == end
    assert window_end(window, end.astimezone(BERLIN)) != end


@given(WINDOWS, MOMENTS)
def test_next_opening_opens(window: Window, moment: datetime) -> None:
    """The window is open then, was not the microsecond before, and does not open earlier."""
    opens = next_opening(window, moment)
    assert opens >= moment.astimezone(UTC)
    end = window_end(window, opens.astimezone(BERLIN))
    assert end is not None
    just_before = (opens - timedelta(microseconds=1)).astimezone(BERLIN)
    assert window_end(window, just_before) != end
    if window_end(window, moment) is None:
        middle = moment.astimezone(UTC) + (opens - moment.astimezone(UTC)) / 2
        assert middle == opens or window_end(window, middle.astimezone(BERLIN)) is None


@pytest.mark.parametrize(
    ("start", "end", "day", "opens", "hours"),
    [
        ("22:00", "06:00", SPRING - timedelta(days=1), "21:00", 7),
        ("22:00", "06:00", AUTUMN - timedelta(days=1), "20:00", 9),
        ("02:30", "04:00", SPRING, "01:00", 1),
        ("01:00", "02:30", SPRING, "00:00", 1),
        ("02:30", "04:00", AUTUMN, "00:30", 2.5),
        ("01:00", "02:30", AUTUMN, "23:00", 1.5),
        ("02:15", "02:45", AUTUMN, "00:15", 0.5),
    ],
)
def test_clock_changes(start: str, end: str, day: date, opens: str, hours: float) -> None:
    """What is skipped counts from after the gap, what is shown twice the first time (UTC)."""
    window = Window(start=start, end=end)
    found = next_opening(window, datetime.combine(day, time(0), BERLIN))
    assert f"{found:%H:%M}" == opens
    closes = window_end(window, found.astimezone(BERLIN))
    assert closes is not None
    assert closes - found == timedelta(hours=hours)


def test_window_inside_the_gap_does_not_open() -> None:
    """A window whose hour the clock skips is closed all that day, and open the next."""
    window = Window(start="02:10", end="02:50")
    start = datetime.combine(SPRING, time(0), UTC)
    day = (start + timedelta(minutes=minute) for minute in range(23 * 60))
    assert not any(window_end(window, moment.astimezone(BERLIN)) for moment in day)
    assert next_opening(window, start.astimezone(BERLIN)).date() == SPRING + timedelta(days=1)


def test_a_day_that_never_was() -> None:
    """Samoa skipped 30 December 2011: a window of that day opens when the next day begins."""
    apia = ZoneInfo("Pacific/Apia")
    window = Window(start="12:00", end="13:00", days=("thu", "fri"))
    thursday = datetime(2011, 12, 29, 12, 30, tzinfo=apia)
    assert window_end(window, thursday) is not None
    opens = next_opening(window, thursday).astimezone(apia)
    assert opens.date() == date(2012, 1, 5)


@pytest.mark.parametrize("day", WEEKDAYS)
def test_days_are_those_of_the_start(day: Weekday) -> None:
    """A window over midnight of one day is open that evening and the next morning, else never."""
    window = Window(start="22:00", end="06:00", days=(day,))
    monday = datetime(2026, 6, 1, tzinfo=BERLIN)
    hours = [monday + timedelta(hours=hour) for hour in range(7 * 24)]
    open_at = {(WEEKDAYS[hour.weekday()], hour.hour) for hour in hours if window_end(window, hour)}
    following = WEEKDAYS[(WEEKDAYS.index(day) + 1) % 7]
    assert open_at == {(day, 22), (day, 23)} | {(following, hour) for hour in range(6)}


def test_no_window_has_no_end() -> None:
    """A job without a window may always start."""
    assert remaining_s(None, datetime.now(BERLIN)) is None
