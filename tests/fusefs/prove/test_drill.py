"""Which points a drill draws: each VM's newest, those proved longest ago first."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.prove.drill import plan_drill
from backpoint_repo.catalog import PointSummary


def summary(number: int, vm: str, time: float, *, branch: bool = False) -> PointSummary:
    identity = number.to_bytes(16, "big")
    return PointSummary(identity, vm, time, time, 0, "", 1, 0, 0, 0, 0, branch)


POINTS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 5), st.none() | st.integers(0, 5)),
    max_size=20,
)


@given(POINTS, st.integers(1, 8), st.integers())
def test_the_drill(rows: list[tuple[str, int, int | None]], count: int, seed: int) -> None:
    """One point a VM and its newest; nobody left out was tried longer ago than one drawn."""
    points = [summary(number, vm, time) for number, (vm, time, _) in enumerate(rows)]
    proved = {
        point.point_id: float(at)
        for point, (_, _, at) in zip(points, rows, strict=True)
        if at is not None
    }
    drawn = plan_drill(points, proved, count, random.Random(seed))
    vms = {point.vm for point in points}
    assert len(drawn) == min(count, len(vms))
    assert len({point.vm for point in drawn}) == len(drawn)
    for point in drawn:
        assert point.time == max(one.time for one in points if one.vm == point.vm)

    def tried(vm: str) -> float:
        own = [proved[one.point_id] for one in points if one.vm == vm and one.point_id in proved]
        return max(own, default=float("-inf"))

    left = vms - {point.vm for point in drawn}
    assert all(tried(out) >= tried(point.vm) for out in left for point in drawn)


def test_a_lot_decides_among_equals() -> None:
    """Or a fleet larger than a night would never be gone through."""
    points = [summary(number, f"vm{number}", 1.0) for number in range(20)]
    first = {plan_drill(points, {}, 1, random.Random(seed))[0].vm for seed in range(30)}
    assert len(first) > 5


def test_what_a_live_session_wrote_is_no_backup_to_prove() -> None:
    """Unless a VM has nothing else."""
    points = [summary(1, "a", 1.0), summary(2, "a", 2.0, branch=True)]
    points.append(summary(3, "b", 1.0, branch=True))
    drawn = plan_drill(points, {}, 5, random.Random(1))
    assert sorted(point.point_id[-1] for point in drawn) == [1, 3]
