"""`VM@POINT` as users type it; ambiguity is told with candidates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import UsageError
from backpoint_repo.point_selector import format_time, select_point


def point(vm: str, when: str, point_id: str, created: float = 0.0) -> PointSummary:
    seconds = datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
    name = bytes.fromhex(point_id.ljust(32, "0"))
    return PointSummary(name, vm, seconds, created, 0, "", 1, 10, 5, 5, 0)


POINTS = [
    point("web", "2026-11-18T02:00:00", "aaaa1"),
    point("web", "2026-11-19T02:00:00", "aaaa2"),
    point("web", "2026-11-20T02:00:00", "bbbb"),
    point("web", "2026-11-20T14:00:00", "2026"),
    point("db", "2026-11-20T02:00:00", "cccc"),
    point("a@b", "2026-11-20T02:00:00", "dddd"),
    point("b@c", "2026-11-20T02:00:00", "eeee"),
    point("b", "2026-11-20T02:00:00", "ffff"),
]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("web", "2026"),
        ("web@latest", "2026"),
        ("web@", "2026"),
        ("web@-1", "2026"),
        ("web@-4", "aaaa1"),
        ("web@0", "aaaa1"),
        ("web@3", "2026"),
        ("web@2026-11-19", "aaaa2"),
        ("web@2026-11-20T02", "bbbb"),
        ("web@2026-11-20T02:00:00Z", "bbbb"),
        ("web@2026-11-20 14:00", "2026"),
        ("web@2026-11-20T02-00-00Z", "bbbb"),
        ("web@bbbb", "bbbb"),
        ("web@aaaa2", "aaaa2"),
        ("web@" + "bbbb".ljust(32, "0"), "bbbb"),
        ("db@2026", "cccc"),
        ("a@b", "dddd"),
        ("a@b@latest", "dddd"),
        ("a@b@-1", "dddd"),
        ("b@c@latest", "eeee"),
        ("b@latest", "ffff"),
    ],
)
def test_selected(selector: str, expected: str) -> None:
    try:
        chosen = select_point(POINTS, selector)
    except UsageError as error:
        pytest.fail(str(error))
    assert chosen.point_id.hex().startswith(expected)


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("web@2026-11", "ambiguous"),
        ("web@2026-11-20", "ambiguous.*2026-11-20T02-00-00Z.*2026-11-20T14-00-00Z"),
        ("web@aaaa", "ambiguous.*aaaa1.*aaaa2"),
        ("web@2026", "ambiguous"),
        ("web@2025", "names no point.*2026-11-20T14"),
        ("web@4", "names no point"),
        ("web@-5", "names no point"),
        ("web@bb", "names no point"),
        ("web@nonsense", "names no point"),
        ("web@2026-11-2", "names no point"),
        ("nobody", "no points.*web"),
        ("nobody@latest", "no points.*web"),
        ("", "no points"),
        ("@latest", "no points"),
    ],
)
def test_refused_with_candidates(selector: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        select_point(POINTS, selector)


def test_no_points_at_all() -> None:
    with pytest.raises(UsageError, match="none at all"):
        select_point([], "web")


def test_many_vms_and_points_are_not_all_listed() -> None:
    many = [point(f"vm{n:03}", "2026-01-01T00:00:00", f"{n:08x}") for n in range(500)]
    with pytest.raises(UsageError) as caught:
        select_point(many, "other")
    assert len(str(caught.value)) < 300


def test_of_one_moment_the_later_made_is_the_latest() -> None:
    twins = [
        point("vm", "2026-01-01T00:00:00", "aaaa", created=5.0),
        point("vm", "2026-01-01T00:00:00", "bbbb", created=9.0),
    ]
    for points in (twins, twins[::-1]):
        assert select_point(points, "vm").point_id.hex().startswith("bbbb")


def test_times_are_utc_and_sortable() -> None:
    assert format_time(0.0) == "1970-01-01T00-00-00Z"
    times = [format_time(seconds) for seconds in (0.0, 9e8, 1e9, 1.7e9, 2e11)]
    assert times == sorted(times)


def test_points_of_one_moment_have_the_order_they_were_made_in() -> None:
    """Also where the clock stood still, or went back."""
    first = point("web", "2026-11-20T02:00:00", "ffff", created=9.0)
    second = point("web", "2026-11-20T02:00:00", "aaaa", created=8.0)._replace(generation=1)
    for points in ([first, second], [second, first]):
        assert select_point(points, "web@latest") == second
