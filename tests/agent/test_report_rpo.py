"""How long a VM was without a new point: no clock and no lost record makes it look better."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.report.history import JobHistory, machine_key, read_history
from backpoint_agent.report.rpo import (
    AHEAD_S,
    GAPS_OF,
    PointTimes,
    believe,
    is_missed,
    reached,
    together,
    wanted_s,
)
from backpoint_agent.report.standing import Recovery, Standing, plan_standings
from backpoint_agent.settings.model import Job
from config_text import VALID, right
from run_records import (
    DAY,
    GIB,
    HOUR,
    NIGHT,
    failed_outcome,
    full_outcome,
    identity_of,
    some_outcome,
    some_run,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOW = NIGHT + 100 * DAY
TIMES = st.lists(st.floats(NIGHT, NOW + 50 * DAY), max_size=40)


def made(*times: float) -> list[tuple[str, float]]:
    """Points of these times, in the order they were made."""
    return [(f"p{number}", time) for number, time in enumerate(times)]


def job(**keys: Any) -> Job:
    """One with a schedule or an RPO."""
    return Job.model_validate({"name": "nightly", "select": {"names": ("*",)}, **keys})


@given(TIMES)
def test_nothing_is_believed_that_something_contradicts(times: list[float]) -> None:
    """What is believed lies neither ahead of now nor after a point made later; the rest is told."""
    points = made(*times)
    found = believe(points, NOW)
    order = {point: number for number, (point, _) in enumerate(points)}
    for point, time in found.believed:
        assert time <= NOW + AHEAD_S
        later = [t for t in times[order[point] + 1 :] if t <= NOW + AHEAD_S]
        assert all(time <= other for other in later)
    known = {point for point, _ in found.believed}
    assert known | found.doubted == set(order)
    assert not known & found.doubted


@given(st.lists(st.floats(NIGHT, NOW), min_size=1, max_size=40).map(sorted))
def test_right_clocks_are_believed_and_figures_are_exact(times: list[float]) -> None:
    """Age and longest gap are those of the times themselves."""
    found = reached(believe(made(*times), NOW), NOW)
    assert found.newest == times[-1]
    assert found.age_s == NOW - times[-1]
    gaps = [later - earlier for earlier, later in pairwise(times[-GAPS_OF:])]
    assert found.longest_gap_s == (max(gaps) if gaps else None)


@given(TIMES, st.floats(NOW + AHEAD_S + 1, NOW + 1000 * DAY), st.integers(0, 40))
def test_a_clock_that_was_ahead_never_flatters(times: list[float], ahead: float, at: int) -> None:
    """A point dated in the future changes no figure for the better, wherever it is in the order."""
    without = reached(believe(made(*times), NOW), NOW)
    points = made(*times)
    points.insert(min(at, len(points)), ("wrong", ahead))
    times_with = believe(points, NOW)
    assert "wrong" in times_with.doubted
    assert reached(times_with, NOW) == without


@given(st.lists(st.floats(NIGHT, NOW), min_size=2, max_size=20))
def test_the_newest_is_no_newer_than_the_one_made_last(times: list[float]) -> None:
    """A clock that was put back has the last word: what is dated later was made before."""
    assert reached(believe(made(*times), NOW), NOW).newest == times[-1]


def test_what_one_place_doubts_no_other_makes_good() -> None:
    """The repository knows a point made later, elsewhere, that the records do not."""
    records = believe([("a", NIGHT), ("b", NIGHT + 9 * DAY)], NOW)
    repository = believe([("a", NIGHT), ("b", NIGHT + 9 * DAY), ("c", NIGHT + DAY)], NOW)
    times = together([records, repository])
    assert times.doubted == {"b"}
    assert [point for point, _ in times.believed] == ["a", "c"]
    assert reached(times, NOW).longest_gap_s == DAY


def test_a_point_that_cannot_be_restored_fills_gaps_of_the_past_only() -> None:
    """Retention removes points; what is there now counts for now."""
    times = believe(made(NOW - 3 * DAY, NOW - 2 * DAY, NOW - DAY), NOW)
    found = reached(times, NOW, there={"p0"})
    assert found.age_s == 3 * DAY
    assert found.longest_gap_s == DAY
    assert found.worst_s == 3 * DAY
    assert reached(times, NOW, there=set()).newest is None


def test_no_points_no_figures() -> None:
    """Nothing is zero that is unknown; what is wanted is missed."""
    found = reached(PointTimes(), NOW)
    assert (found.newest, found.age_s, found.longest_gap_s, found.worst_s) == (None,) * 4
    assert is_missed(DAY, found)
    assert not is_missed(None, found)


def test_a_point_from_a_clock_slightly_ahead_is_of_now() -> None:
    """A minute between two machines' clocks is no jump, and no negative age."""
    found = reached(believe(made(NOW + 60), NOW), NOW)
    assert found.age_s == 0.0


@pytest.mark.parametrize(
    ("keys", "hours"),
    [
        ({"rpo_hours": 12, "schedule": "0 2 * * *"}, 12),
        ({"schedule": "0 2 * * *"}, 24 + 6),
        ({"schedule": "0 * * * *"}, 2),
        ({"schedule": "*/10 * * * *"}, 1 / 3),
        ({"schedule": "0 2 * * 1-5"}, 72 + 6),
        ({"schedule": "0 2 * * 0"}, 7 * 24 + 6),
        ({"schedule": "30 12 1 * *"}, 31 * 24 + 1 + 6),
        ({"schedule": "0 2 1 1 *"}, 365 * 24 + 6),
        ({"schedule": "0 * * * *", "window": {"start": "22:00", "end": "06:00"}}, 17 + 6),
        ({"schedule": "0 12 * * *", "window": {"start": "22:00", "end": "06:00"}}, None),
        ({}, None),
    ],
)
def test_what_a_job_wants(keys: dict[str, Any], hours: float | None) -> None:
    """Its `rpo_hours`; else the longest pause between starts that fall into the window, and some
    slack."""
    now = datetime(2026, 6, 3, 12, 30, tzinfo=BERLIN)
    assert wanted_s(job(**keys), now) == (None if hours is None else pytest.approx(hours * HOUR))


def test_the_longest_pause_is_the_one_that_daylight_saving_makes() -> None:
    """Around the end of October a day has 25 hours."""
    now = datetime(2026, 10, 24, 12, 0, tzinfo=BERLIN)
    assert wanted_s(job(schedule="0 2 * * *"), now) == pytest.approx((25 + 6) * HOUR)


def history_of(*runs: Any) -> JobHistory:
    """runs: the first one first."""
    return read_history("nightly", reversed(runs))


def names_of(history: JobHistory) -> set[str]:
    """Of the job's VMs."""
    return {machine.newest.vm for machine in history.machines.values()}


def night(number: int, *vms: str, **changes: Any) -> Any:
    """A run of these VMs."""
    at = NIGHT + number * DAY
    return some_run(*(some_outcome(vm, at) for vm in vms), at=at, **changes)


def test_a_vm_that_left_the_job_is_no_longer_of_it() -> None:
    """The newest run that dealt with all says who belongs to it."""
    history = history_of(night(0, "a", "b", "c"), night(1, "a", "b"))
    assert names_of(history) == {"a", "b"}


def test_a_run_of_one_vm_by_hand_does_not_remove_the_others() -> None:
    """However many there are in a row within a month; and its VM is of the job, whatever it was."""
    by_hand = [some_run(some_outcome("x", NIGHT + DAY + n), at=NIGHT + DAY + n) for n in range(30)]
    history = history_of(night(0, "a", "b"), *by_hand)
    assert names_of(history) == {"a", "b", "x"}


def test_a_job_of_one_vm_forgets_its_former_one_in_the_end() -> None:
    """After ten runs and a month without it."""
    history = history_of(night(0, "old"), *(night(60 + n, "new") for n in range(20)))
    assert names_of(history) == {"new"}
    history = history_of(night(0, "old"), *(night(60 + n, "new") for n in range(9)))
    assert names_of(history) == {"new", "old"}


def test_a_run_that_failed_as_a_whole_removes_nobody() -> None:
    """It says nothing of the VMs that it did not come to."""
    failed = some_run(failed_outcome("a"), failed_outcome("b"), trouble="vCenter went away")
    history = history_of(night(0, "a", "b", "c"), failed, some_run(trouble="no answer"))
    assert names_of(history) == {"a", "b", "c"}
    assert history.newest is not None
    assert history.newest.trouble == "no answer"


def test_a_start_that_was_only_reported_is_no_run() -> None:
    """The last run stays the last one; why there was none since is known."""
    run = night(0, "a", "b")
    reported = some_run(at=NIGHT + DAY, ended=NIGHT + DAY, trouble="outside its window")
    history = history_of(run, reported)
    assert history.newest == run
    assert history.not_started == "outside its window"
    assert history_of(reported, run).not_started == ""


def test_a_history_takes_no_more_records_than_it_needs() -> None:
    """Thirty points of every VM are enough; of one that never had any, two hundred runs are."""
    taken = 0

    def endless(*outcomes: Any) -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield some_run(*(make(vm, NOW - taken * DAY) for make, vm in outcomes))

    history = read_history("nightly", endless((some_outcome, "a"), (some_outcome, "b")))
    assert taken == GAPS_OF
    assert {len(machine.points) for machine in history.machines.values()} == {GAPS_OF}
    taken = 0
    read_history("nightly", endless((some_outcome, "a"), (failed_outcome, "b")))
    assert taken == 200


def test_vms_without_an_instance_uuid_are_told_apart() -> None:
    """By their morefs, within their vCenter."""
    one = some_outcome("a", identity="vc/", moref="vm-1")
    other = some_outcome("b", identity="vc/", moref="vm-2")
    assert machine_key(one) != machine_key(other)


def standings(*runs: Any, **known: Any) -> dict[str, Standing]:
    """Of the job `nightly`, by name of VM."""
    now = datetime.fromtimestamp(NOW, BERLIN)
    settings = right(VALID + "rpo_hours = 26\n")
    return {s.outcome.vm: s for s in plan_standings(settings, [history_of(*runs)], now, **known)}


def test_the_rpo_is_missed_by_age_alone() -> None:
    """A gap that has been closed is shown and is no miss."""
    late = some_outcome("late", NOW - 27 * HOUR)
    old = some_run(some_outcome("good", NOW - 80 * DAY), late)
    new = some_run(some_outcome("good", NOW - HOUR), failed_outcome("late", NOW - HOUR))
    found = standings(old, new)
    assert not found["good"].is_missed
    assert found["good"].reached.longest_gap_s == 80 * DAY - HOUR
    assert found["late"].is_missed
    assert found["late"].reached.age_s == 27 * HOUR


def test_the_repository_has_the_last_word_on_what_can_be_restored() -> None:
    """A recorded point that is gone counts for nothing; one that was made elsewhere counts."""
    run = some_run(some_outcome("a", NOW - HOUR), some_outcome("b", NOW - 90 * HOUR))
    stored = {identity_of("a"): [("old", NOW - 50 * HOUR)], identity_of("b"): [("x", NOW - HOUR)]}
    found = standings(run, repository=stored)
    assert found["a"].is_missed
    assert found["a"].reached.age_s == 50 * HOUR
    assert "is not in the repository" in found["a"].remarks[0]
    assert not found["b"].is_missed
    assert found["b"].reached.longest_gap_s == 89 * HOUR
    assert found["b"].remarks == (), "an older one is what retention removes"
    assert not standings(run)["a"].is_missed


def test_wrong_clocks_are_told() -> None:
    """A run, and its point, dated in the future."""
    run = some_run(some_outcome("a", NOW + DAY), some_outcome("b", NOW - DAY))
    found = standings(run)
    assert len(found["a"].remarks) == 2
    assert all("clock was wrong" in text for text in found["a"].remarks)
    assert found["a"].is_missed
    assert found["b"].remarks == ()


def test_the_recovery_time_is_of_restores_or_of_the_last_full() -> None:
    """Never of an incremental, which reads next to nothing; unknown where nothing is known."""
    full = full_outcome("a", NIGHT, ended=NIGHT + 100, size=4 * GIB)
    backwards = full_outcome("b", NIGHT, ended=NIGHT - 100)
    new = [some_outcome(vm, NIGHT + DAY, size=8 * GIB) for vm in ("a", "b")]
    runs = (some_run(full, backwards, failed_outcome("c")), some_run(*new, failed_outcome("c")))
    found = standings(*runs)
    assert found["a"].recovery == Recovery(200.0, "the last full")
    assert found["b"].recovery is None
    assert found["c"].recovery is None
    assert standings(*runs, restore_rate=GIB / 10)["a"].recovery == Recovery(80.0, "restores")
