"""What is kept: calendar rules, what never goes, and that wrong times make nothing go.

Of 95 mutants of `plan.py`, `succession.py` and `rules.py` (comparisons, and/or, not, +/-,
constants, min/max, bisect) those that live on change nothing that can be seen: `frozen` and
`strict`, the tolerance itself, which plan of one point a joined verdict takes it from, an age of
less than a second, one spare zero behind the places, months that are numbered otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import UsageError
from backpoint_repo.retention.plan import (
    FUTURE,
    NEWEST,
    NEWEST_PROVEN,
    NO_RULE,
    Guards,
    Verdict,
    kept_by_any,
    newest_first,
    plan_retention,
)
from backpoint_repo.retention.rules import Rules
from backpoint_repo.retention.succession import FUTURE_TOLERANCE_S, LATER, is_future

HOUR, DAY = 3600.0, 86400.0


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = moment("2026-11-20T12:00")


def summary(
    number: int,
    time: float,
    created: float | None = None,
    generation: int | None = None,
    vm: str = "web",
    *,
    branch: bool = False,
) -> PointSummary:
    """By default in order: made ten minutes after the moment it shows."""
    made = time + 600 if created is None else created
    return PointSummary(
        number.to_bytes(16, "big"),
        vm,
        time,
        made,
        number if generation is None else generation,
        *("", 1, 1, 1, 1, 0),
        branch=branch,
    )


def series(*times: float) -> list[PointSummary]:
    return [summary(number, time) for number, time in enumerate(times)]


def kept(verdicts: Iterable[Verdict]) -> set[bytes]:
    return {verdict.point.point_id for verdict in verdicts if verdict.keep}


def ids(*points: PointSummary) -> set[bytes]:
    return {point.point_id for point in points}


def test_each_bucket_keeps_its_newest() -> None:
    """Two a day over three months: the calendar in UTC, weeks from Monday."""
    start = moment("2026-08-20T01:00")
    points = series(*(start + half * DAY / 2 for half in range(2 * 92 + 1)))
    rules = Rules(last=1, daily=3, weekly=3, monthly=3)
    shown = {
        datetime.fromtimestamp(verdict.point.time, UTC).strftime("%m-%dT%H"): verdict.reasons
        for verdict in plan_retention(points, rules, NOW, 0.0)
        if verdict.keep
    }
    assert shown == {
        "09-30T13": ("monthly 3 of 3",),
        "10-31T13": ("monthly 2 of 3",),
        "11-08T13": ("weekly 3 of 3",),
        "11-15T13": ("weekly 2 of 3",),
        "11-18T13": ("daily 3 of 3",),
        "11-19T13": ("daily 2 of 3",),
        "11-20T01": ("last 1 of 1", "daily 1 of 3", "weekly 1 of 3", "monthly 1 of 3", NEWEST),
    }


def test_hours_and_years() -> None:
    times = ["2023-12-31T23:59", "2024-01-01T00:00", "2026-11-20T09:59", "2026-11-20T10:00"]
    points = series(*map(moment, times))
    assert kept(plan_retention(points, Rules(hourly=2), NOW, 0.0)) == ids(*points[2:])
    assert kept(plan_retention(points, Rules(yearly=9), NOW, 0.0)) == ids(*points[:2], points[3])


def test_within_counts_from_the_newest_point() -> None:
    """Where backups have stopped, waiting alone makes nothing go; nor does a fast clock."""
    points = series(*(NOW - days * DAY for days in (9, 8, 7, 1)))
    for now in (NOW, NOW + 1000 * DAY):
        verdicts = plan_retention(points, Rules(within_s=7 * DAY), now, 0.0)
        assert kept(verdicts) == ids(*points[1:])
        assert verdicts[2].reasons == ("within 7d of the newest",)
        assert verdicts[0].reasons == (NO_RULE,)
    # To the second; and what was made later than it shows is as young as that.
    just = [summary(0, NOW - 7 * DAY, created=NOW - 7 * DAY), summary(1, NOW)]
    assert kept(plan_retention(just, Rules(within_s=7 * DAY), NOW, 0.0)) == ids(*just)
    assert kept(plan_retention(just, Rules(within_s=7 * DAY - 1), NOW, 0.0)) == ids(just[1])


def test_good_proofs_are_looked_for_from_the_newest_on() -> None:
    points = series(NOW - DAY, NOW - 2 * DAY, NOW, NOW + DAY)
    assert newest_first(points, NOW) == [points[2], points[0], points[1]]


def test_vms_and_branches_take_nothing_from_each_other() -> None:
    """A branch's newest goes where the VM has backups, and stays where it has none."""
    day = [NOW - (9 - n) * HOUR for n in range(4)]
    web = [summary(n, day[n]) for n in range(2)]
    mail = [summary(10 + n, day[n], vm="mail") for n in range(2)]
    branches = [summary(20 + n, day[2 + n], branch=True) for n in range(2)]
    alone = [summary(30 + n, day[2 + n], vm="lab", branch=True) for n in range(2)]
    verdicts = plan_retention([*web, *mail, *branches, *alone], Rules(last=1), NOW, 0.0)
    assert kept(verdicts) == ids(web[1], mail[1], branches[1], alone[1])
    by_id = {verdict.point.point_id: verdict.reasons for verdict in verdicts}
    assert by_id[branches[1].point_id] == ("last 1 of 1",)
    assert by_id[alone[1].point_id] == ("last 1 of 1", NEWEST)


def test_what_never_goes() -> None:
    points = series(*(NOW - (9 - n) * DAY for n in range(9)))
    spared = {points[1].point_id: ("held: audit",), points[2].point_id: ("a", "b")}
    proven = ids(points[0], points[3], points[4])
    verdicts = plan_retention(points, Rules(last=1), NOW, 2 * DAY, Guards(proven, spared))
    assert [verdict.reasons for verdict in verdicts] == [
        (NO_RULE,),
        ("held: audit",),
        ("a", "b"),
        (NO_RULE,),
        (NEWEST_PROVEN,),
        (NO_RULE,),
        (NO_RULE,),
        ("younger than 2d, the minimum age",),
        ("last 1 of 1", NEWEST, "younger than 2d, the minimum age"),
    ]


def test_an_old_image_imported_now_is_as_young_as_its_import() -> None:
    old = summary(0, NOW - 900 * DAY, created=NOW - DAY)
    points = [old, *(summary(n, NOW - HOUR * (9 - n)) for n in range(1, 5))]
    assert old.point_id in kept(plan_retention(points, Rules(last=1), NOW, 2 * DAY))
    assert old.point_id not in kept(plan_retention(points, Rules(last=1), NOW, DAY))


def test_points_in_the_future_count_for_nothing() -> None:
    """However many, and whichever of their two times it is."""
    points = series(*(NOW - (9 - n) * DAY for n in range(9)))
    far = NOW + FUTURE_TOLERANCE_S + 1
    wrong = [summary(50 + n, far + n * DAY, created=NOW) for n in range(9)]
    wrong += [summary(70 + n, NOW - n, created=far) for n in range(9)]
    rules = Rules(last=2, daily=3, within_s=2 * DAY)
    alone = plan_retention(points, rules, NOW, 0.0)
    beside = plan_retention([*points, *wrong], rules, NOW, 0.0)
    assert kept(beside) == kept(alone) | ids(*wrong)
    assert {v.reasons for v in beside if v.point in wrong} == {(FUTURE,)}


def test_a_slow_clock_keeps_all() -> None:
    points = series(*(NOW - n * DAY for n in range(9)))
    assert all(v.keep for v in plan_retention(points, Rules(last=1), NOW - 99 * DAY, 0.0))


def test_backdated_points_take_no_place() -> None:
    """Made today, for each past day the last minute: somebody wants the real ones to go."""
    days = [moment("2026-11-11T02:00") + n * DAY for n in range(9)]
    real = series(*days)
    forged = [summary(50 + n, days[n] + 21 * HOUR, created=NOW) for n in range(8)]
    for rules in (Rules(last=5), Rules(daily=7), Rules(hourly=5), Rules(weekly=1, daily=3)):
        alone = kept(plan_retention(real, rules, NOW, 0.0))
        assert kept(plan_retention([*real, *forged], rules, NOW, 0.0)) >= alone


def test_a_dead_clock_makes_no_backup_go() -> None:
    """Backups that claim 1970 are the truth; they stay until later ones follow in order."""
    good = series(*(NOW - (9 - n) * DAY for n in range(5)))
    lost = [summary(10 + n, 60.0 + n * DAY, created=90.0 + n * DAY) for n in range(3)]
    rules = Rules(last=2, within_s=DAY)
    assert kept(plan_retention([*good, *lost], rules, NOW, 0.0)) >= ids(*lost, *good[3:])
    after = [summary(20 + n, NOW - DAY + n * HOUR) for n in range(4)]
    assert kept(plan_retention([*good, *lost, *after], rules, NOW, 0.0)) == ids(*after)


def test_wrong_times_that_come_of_age_make_no_real_backup_go() -> None:
    """A week made by a clock a month ahead; a month later it lies among real points."""
    start = moment("2026-10-01T02:00")
    early = [summary(n, start + n * DAY) for n in range(3)]
    ahead = [summary(3 + n, start + (33 + n) * DAY + HOUR) for n in range(7)]
    real = [summary(10 + n, start + (10 + n) * DAY) for n in range(30)]
    now = start + 40 * DAY
    verdicts = plan_retention([*early, *ahead, *real], Rules(daily=7), now, 0.0)
    assert kept(verdicts) >= ids(*real[-7:])


def test_the_only_point_stays() -> None:
    for branch in (False, True):
        only = summary(0, NOW - 999 * DAY, branch=branch)
        assert plan_retention([only], Rules(hourly=1), NOW, 0.0)[0].keep
    assert plan_retention([], Rules(last=1), NOW, 0.0) == []


def test_what_one_plan_keeps_is_kept() -> None:
    points = series(*(NOW - (9 - n) * DAY for n in range(4)))
    plans = [plan_retention(points, Rules(last=n), NOW, 0.0) for n in (1, 3)]
    joined = kept_by_any(plans)
    assert kept(joined) == kept(plans[1])
    assert joined[3].reasons == ("last 1 of 1", NEWEST, "last 1 of 3")
    assert joined[0].reasons == (NO_RULE,)


@pytest.mark.parametrize("wrong", [{}, {"last": -1}, {"daily": 1, "within_s": -1.0}])
def test_no_rule_is_no_order_to_remove_all(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Rules(**wrong)
    with pytest.raises(UsageError):
        Rules(last=1, within_s=math.nan)


# A few hours, days and generations that often fall together, in and out of order.
times = st.integers(0, 40).map(lambda step: NOW - 50 * DAY + step * 1.3 * DAY)
claims = st.tuples(times, times, st.integers(0, 6))
rule_sets = st.builds(
    Rules,
    *(st.integers(0, 3) for _ in range(6)),
    st.integers(1, 9).map(lambda days: days * DAY),
) | st.builds(Rules, st.integers(1, 3), *(st.integers(0, 3) for _ in range(5)))


def claimed(claims: Sequence[tuple[float, float, int]]) -> list[PointSummary]:
    return [summary(n, *claim) for n, claim in enumerate(claims)]


def by_definition(points: list[PointSummary], rules: Rules, now: float) -> set[bytes]:
    """What the rules keep, as the documentation says it: point by point, pair by pair."""
    past = [point for point in points if not is_future(point, now)]

    def out_of_order(point: PointSummary) -> bool:
        return any(
            LATER(other) > LATER(point)
            and (other.created < point.created or other.generation < point.generation)
            for other in past
        )

    in_order = [point for point in past if not out_of_order(point)]
    found = ids(*(point for point in points if is_future(point, now)))
    for point in past:
        rivals = [
            other
            for other in in_order
            if LATER(other) > LATER(point)
            and other.created >= point.created
            and other.generation >= point.generation
        ]
        newest = max((other.time for other in in_order), default=-math.inf)
        own = max(point.time, point.created)
        keep = len(rivals) < rules.last
        keep |= bool(rules.within_s) and (not rivals or own >= newest - rules.within_s)
        for _, wanted, bucket in rules.buckets:
            taken = {bucket(other.time) for other in rivals}
            keep |= bucket(point.time) not in taken and len(taken) < wanted
        if keep:
            found |= ids(point)
    return found


@given(st.lists(claims, max_size=12), rule_sets)
def test_it_is_what_the_definition_says(made: list[tuple[float, float, int]], rules: Rules) -> None:
    points = claimed(made)
    by_rule = ids(
        *(
            verdict.point
            for verdict in plan_retention(points, rules, NOW, 0.0)
            if verdict.keep and verdict.reasons != (NEWEST,)
        )
    )
    assert by_rule == by_definition(points, rules, NOW)


@given(st.lists(claims, min_size=1, max_size=12), claims, rule_sets)
def test_a_point_out_of_order_makes_none_go(
    made: list[tuple[float, float, int]], more: tuple[float, float, int], rules: Rules
) -> None:
    """Nor does one in the future. One in order makes none go that is later than itself."""
    points, added = claimed(made), summary(99, *more)
    before = plan_retention(points, rules, NOW, 0.0)
    after = kept(plan_retention([*points, added], rules, NOW, 0.0))
    gone = [v for v in before if v.keep and v.point.point_id not in after]
    # The point made last is spared, too; that is the added one now.
    gone = [verdict for verdict in gone if verdict.reasons != (NEWEST,)]
    contradicted = any(
        not is_future(other, NOW)
        and LATER(other) > LATER(added)
        and (other.created < added.created or other.generation < added.generation)
        for other in points
    )
    if is_future(added, NOW) or contradicted:
        assert not gone
    within = rules.within_s > 0
    assert within or all(LATER(verdict.point) < LATER(added) for verdict in gone)


@given(st.lists(claims, max_size=12), rule_sets, st.sets(st.integers(0, 11)))
def test_a_second_run_finds_nothing_to_remove(
    made: list[tuple[float, float, int]], rules: Rules, proven: set[int]
) -> None:
    """Where points are in order. Where they are not, what contradicted one may have gone."""
    points = claimed(list(zip(*map(sorted, zip(*made, strict=True)), strict=True)))
    guards = Guards(ids(*(points[n] for n in proven if n < len(points))))
    left = [v.point for v in plan_retention(points, rules, NOW, 0.0, guards) if v.keep]
    assert all(verdict.keep for verdict in plan_retention(left, rules, NOW, 0.0, guards))


@given(st.lists(claims, min_size=1, max_size=12), rule_sets, st.sets(st.integers(0, 11)))
def test_the_newest_are_always_left(
    made: list[tuple[float, float, int]], rules: Rules, proven: set[int]
) -> None:
    """In time, in making, and of the proven, whatever the times are."""
    points = claimed(made)
    guards = Guards(ids(*(points[n] for n in proven if n < len(points))))
    left = [v.point for v in plan_retention(points, rules, NOW, 0.0, guards) if v.keep]
    past = [point for point in points if not is_future(point, NOW)]
    if past:
        assert max(past, key=LATER) in left
        assert max(past, key=lambda p: (p.generation, p.created, p.point_id)) in left
    good = [point for point in past if point.point_id in guards.proven]
    if good:
        assert max(good, key=LATER) in left


@given(st.integers(1, 30), st.integers(1, 40))
def test_last_keeps_the_newest_by_time(wanted: int, there: int) -> None:
    points = series(*(NOW - (there - n) * HOUR for n in range(there)))
    assert kept(plan_retention(points, Rules(last=wanted), NOW, 0.0)) == ids(*points[-wanted:])
