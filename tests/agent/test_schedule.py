"""When jobs are due: cron in local time, clocks that jump, agents that were off, windows."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.cron import BadCron, check_cron, dues_after, last_due, next_due
from backpoint_agent.schedule import (
    BELIEVED_AHEAD,
    LATE,
    LONGEST_SLEEP_S,
    Due,
    Step,
    next_start,
    plan_due,
    plan_step,
    sleep_s,
    starts_in_window,
)
from backpoint_agent.settings.model import Job, Selection, Window

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Window(start="22:00", end="06:00")

EXPRESSIONS = (
    "0 23 * * *",
    "30 2 * * *",
    "0,30 2 * * *",
    "15 3 * * *",
    "*/20 * * * *",
    "5 */4 * * *",
    "0 1 * * sun",
    "0 0 1 * *",
    "10 1-3 * * mon-fri",
    "0 12 L * *",
)
MOMENTS = st.datetimes(
    min_value=datetime(2026, 1, 1),
    max_value=datetime(2027, 12, 31),
    timezones=st.just(BERLIN),
    allow_imaginary=False,
)
SPANS = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=3))


def job(name: str = "nightly", schedule: str | None = "0 23 * * *", **keys: object) -> Job:
    """A job for all VMs."""
    selection = Selection(everything=True)
    return Job.model_validate({"name": name, "select": selection, "schedule": schedule, **keys})


def berlin(text: str, fold: int = 0) -> datetime:
    """A moment as Berlin's clocks show it."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


@pytest.mark.parametrize(
    ("expression", "after", "dues"),
    [
        ("30 2 * * *", "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:30"]),
        ("30 2 * * *", "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
        ("0,30 2 * * *", "2026-03-29 00:00", ["2026-03-29 01:00", "2026-03-30 00:00"]),
        ("0 * * * *", "2026-10-25 01:30", ["2026-10-25 00:00", "2026-10-25 01:00"]),
        ("0 23 * * *", "2026-06-01 23:00", ["2026-06-02 21:00"]),
        ("0 0 29 2 *", "2026-01-01 00:00", ["2028-02-28 23:00"]),
        ("0 9 * * MON#1", "2026-06-01 09:00", ["2026-07-06 07:00"]),
    ],
)
def test_due_times(expression: str, after: str, dues: list[str]) -> None:
    """Also where the clock skips the time of day, or shows it twice (UTC)."""
    found = islice(dues_after(expression, berlin(after)), len(dues))
    assert [f"{due:%Y-%m-%d %H:%M}" for due in found] == dues


def test_a_time_shown_twice_is_due_the_first_time() -> None:
    """Seen from between both, it is over."""
    between = berlin("2026-10-25 02:15", fold=1)
    assert last_due("30 2 * * *", between) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_due("30 2 * * *", between) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@given(st.sampled_from(EXPRESSIONS), MOMENTS)
def test_last_and_next_meet(expression: str, moment: datetime) -> None:
    """Between the last due time and the next there is none; each is the other's neighbour."""
    last, following = last_due(expression, moment), next_due(expression, moment)
    assert last is not None
    assert last <= moment.astimezone(UTC) < following
    assert next_due(expression, last.astimezone(BERLIN)) == following
    assert last_due(expression, following.astimezone(BERLIN)) == following
    just_before = (following - timedelta(seconds=1)).astimezone(BERLIN)
    assert last_due(expression, just_before) == last


@given(st.sampled_from(EXPRESSIONS), MOMENTS, SPANS)
def test_due_times_do_not_depend_on_where_the_search_begins(
    expression: str, moment: datetime, span: timedelta
) -> None:
    """All dues after one moment begin with those up to a later one and go on with those after."""
    later = (moment.astimezone(UTC) + span).astimezone(BERLIN)
    first = list(islice(dues_after(expression, moment), 240))
    assert all(before < after for before, after in pairwise(first))
    tail = [due for due in first if due > later.astimezone(UTC)][:20]
    assert len(tail) == 20
    assert tail == list(islice(dues_after(expression, later), 20))


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "* * 30 2 *",
        "0 0 1 13 *",
        "a b c d e",
        "9" * 6000 + " 0 * * *",
    ],
)
def test_bad_expressions_are_refused(expression: str) -> None:
    """Also those that never come."""
    with pytest.raises(BadCron):
        check_cron(expression)


@given(st.lists(st.text("0159*/-,L#W MONJULSUN", min_size=1, max_size=6), min_size=5, max_size=5))
def test_expressions_are_refused_or_work(fields: list[str]) -> None:
    """Nothing else comes of any text: a due time, or BadCron."""
    expression = " ".join(field.replace(" ", "*") for field in fields)
    try:
        check_cron(expression)
    except BadCron:
        return
    following = next_due(expression, berlin("2026-06-01 12:00"))
    assert last_due(expression, following.astimezone(BERLIN)) == following


def test_a_job_runs_once_for_each_night() -> None:
    """A tick a minute for three days: three starts, on time, with the window's end."""
    seen: list[Due] = []
    now, known = berlin("2026-06-01 12:00"), dict[str, datetime]()
    for minute in range(3 * 1440):
        step = plan_step(now + timedelta(minutes=minute), [job(window=NIGHT)], known)
        known = step.dealt_with
        seen += step.due
    assert [f"{due.at.astimezone(BERLIN):%d %H:%M}" for due in seen] == [
        "01 23:00",
        "02 23:00",
        "03 23:00",
    ]
    assert all(due.starts and not due.late for due in seen)
    assert {f"{due.until:%H:%M}" for due in seen} == {"04:00"}


def test_a_new_job_waits_for_its_next_time() -> None:
    """What was due before the job existed is not made up for."""
    step = plan_step(berlin("2026-06-01 23:30"), [job()], {})
    assert not step.due
    later = plan_step(berlin("2026-06-02 23:00"), [job()], step.dealt_with)
    assert [due.job for due in later.due] == ["nightly"]


@pytest.mark.parametrize(
    ("back", "starts"), [("2026-06-08 02:00", True), ("2026-06-08 09:00", False)]
)
def test_one_run_makes_up_for_many_missed(back: str, starts: bool) -> None:
    """An agent that was off for a week: one run, for the latest night, if the window is open."""
    known = {"nightly": berlin("2026-06-01 23:00")}
    step = plan_step(berlin(back), [job(window=NIGHT)], known)
    assert [(due.late, due.starts) for due in step.due] == [(True, starts)]
    assert step.due[0].at == berlin("2026-06-07 23:00").astimezone(UTC)
    again = plan_step(berlin(back) + timedelta(minutes=1), [job(window=NIGHT)], step.dealt_with)
    assert not again.due


def test_jobs_without_schedule_are_never_due() -> None:
    """They are started by hand; jobs that are gone are forgotten."""
    step = plan_step(
        berlin("2026-06-01 23:00"), [job(schedule=None)], {"old": berlin("2026-05-01")}
    )
    assert step == Step((), {"nightly": berlin("2026-06-01 23:00").astimezone(UTC)})
    assert next_start(job(schedule=None), berlin("2026-06-01 23:00")) is None
    assert not plan_due(berlin("2026-06-01 23:00"), [job()], {})


JUMPS = st.lists(
    st.one_of(
        st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(minutes=2)),
        st.timedeltas(min_value=timedelta(hours=-8), max_value=timedelta(hours=8)),
        st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=40)),
    ),
    max_size=30,
)


@given(
    st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3, unique=True),
    MOMENTS,
    JUMPS,
)
def test_jumping_clocks_run_nothing_twice(
    expressions: list[str], start: datetime, jumps: list[timedelta]
) -> None:
    """Whatever the clock does, short of going back a day: no due time twice, one run a job and
    look, none for a time that has not come, and no job left waiting once it has."""
    jobs = [job(expression, expression) for expression in expressions]
    now, furthest, known = start, start.astimezone(UTC), dict[str, datetime]()
    done: set[tuple[str, datetime]] = set()
    for jump in [timedelta(0), *jumps]:
        # The far end is what was dealt with; further back than that the clock was plainly wrong.
        there = max(now.astimezone(UTC) + jump, furthest - BELIEVED_AHEAD)
        now, furthest = there.astimezone(BERLIN), max(furthest, there)
        step = plan_step(now, jobs, known)
        names = [due.job for due in step.due]
        assert len(names) == len(set(names))
        for due in step.due:
            assert due.at <= there
            assert (due.job, due.at) not in done
            assert due.late == (there - due.at > LATE)
            done.add((due.job, due.at))
        for each in jobs:
            latest = last_due(each.name, now)
            assert latest is not None
            assert step.dealt_with[each.name] >= latest
            assert each.name in names or not known or known[each.name] >= latest
        known = step.dealt_with


@pytest.mark.parametrize("hours", [1, 8, 25])
def test_a_clock_put_back_runs_nothing_again(hours: int) -> None:
    """Until it has come again to where it was; then all goes on."""
    jobs, ran = [job(schedule="*/20 * * * *")], berlin("2026-06-02 12:00")
    known = plan_step(ran, jobs, {"nightly": berlin("2026-06-02 11:40")}).dealt_with
    for minute in range(-60 * hours, 20):
        step = plan_step(ran + timedelta(minutes=minute), jobs, known)
        assert not step.due
        known = step.dealt_with
    assert len(plan_step(ran + timedelta(minutes=20), jobs, known).due) == 1


def test_a_clock_years_ahead_does_not_stop_a_job_for_years() -> None:
    """Put right, the clock finds the job waiting for its next time, not lost and not run."""
    wrong = plan_step(berlin("2040-01-01 23:10"), [job()], {"nightly": berlin("2026-06-01 23:00")})
    assert len(wrong.due) == 1
    right = plan_step(berlin("2026-06-02 12:00"), [job()], wrong.dealt_with)
    assert not right.due
    night = plan_step(berlin("2026-06-02 23:00"), [job()], right.dealt_with)
    assert [due.at for due in night.due] == [berlin("2026-06-02 23:00").astimezone(UTC)]


def test_several_jobs_come_in_order() -> None:
    """The one that has waited longest first."""
    jobs = [job("b", "0 23 * * *"), job("a", "30 23 * * *"), job("c", "0 23 * * *")]
    known = {each.name: berlin("2026-06-01 12:00") for each in jobs}
    due = plan_due(berlin("2026-06-01 23:45"), jobs, known)
    assert [each.job for each in due] == ["b", "c", "a"]


@given(MOMENTS, st.sampled_from(EXPRESSIONS))
def test_sleep_ends_at_the_next_start(moment: datetime, expression: str) -> None:
    """Or sooner, because a clock may be put right meanwhile; never after it, never not at all."""
    seconds = sleep_s(moment, [job(schedule=expression), job("by-hand", None)])
    start = next_start(job(schedule=expression), moment)
    assert start is not None
    assert 0 < seconds <= LONGEST_SLEEP_S
    assert moment.astimezone(UTC) + timedelta(seconds=seconds) <= start


def test_starts_fall_in_windows() -> None:
    """Without a window any time will do."""
    evening, noon = berlin("2026-06-01 23:00"), berlin("2026-06-01 12:00")
    assert starts_in_window(job(window=NIGHT), evening)
    assert not starts_in_window(job(window=NIGHT), noon)
    assert starts_in_window(job(), noon)


_ZONE_PROGRAM = """
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo
from backpoint_agent.cron import last_due, next_due
from backpoint_agent.local_zone import LocalZone, now

here, there = LocalZone(), ZoneInfo("Europe/Berlin")
assert abs(now() - datetime.now(UTC)) < timedelta(minutes=1)
moment = datetime(2026, 1, 1, tzinfo=UTC)
while moment.year == 2026:
    mine, theirs = moment.astimezone(here), moment.astimezone(there)
    assert mine.replace(tzinfo=None) == theirs.replace(tzinfo=None), moment
    assert mine.fold == theirs.fold, moment
    assert mine.utcoffset() == theirs.utcoffset(), moment
    assert mine.tzname() == theirs.tzname(), moment
    assert mine.astimezone(UTC) == moment
    for expression in ("30 2 * * *", "7 * * * *"):
        for find in (last_due, next_due):
            assert find(expression, mine) == find(expression, theirs), (expression, moment)
    moment += timedelta(minutes=30) if moment.month in (3, 10) and moment.day > 23 else (
        timedelta(hours=11)
    )
print("all", moment.year)
"""


@pytest.mark.parametrize("zone", ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_the_machines_zone(zone: str) -> None:
    """The C library's zone, by name or as POSIX writes one, is what zoneinfo says of it."""
    found = subprocess.run(
        [sys.executable, "-c", _ZONE_PROGRAM],
        env={**os.environ, "TZ": zone, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.stdout, found.stderr) == ("all 2027\n", "")
