"""What is copied, in which order and onto what: pure decisions over summaries."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.catalog import PointSummary
from backpoint_repo.copying.plan import (
    MADE,
    Stock,
    base_of,
    count_there,
    plan_missing,
    plan_newer,
)

HERE, THERE = b"h" * 16, b"t" * 16
WEB = {"web"}


def summary(
    number: int,
    vm: str = "web",
    *,
    generation: int | None = None,
    time: float | None = None,
    created: float | None = None,
    origin: bytes = b"",
) -> PointSummary:
    """Point number n: made and shown at n seconds, of generation n."""
    return PointSummary(
        number.to_bytes(16, "big"),
        vm,
        float(number) if time is None else time,
        float(number) if created is None else created,
        number if generation is None else generation,
        "", 1, 10, 5, 5, 0,
        origin=origin,
    )  # fmt: skip


def copy_of(point: PointSummary, repository: bytes = HERE) -> PointSummary:
    """As `copy` makes it: later, with the original's generation."""
    return point._replace(
        point_id=bytes(reversed(point.point_id)),
        created=point.created + 1e6,
        origin=repository + point.point_id,
    )


def numbers(points: Iterable[PointSummary]) -> list[int]:
    return [int.from_bytes(point.point_id, "big") for point in points]


points_of_vms = st.lists(
    st.tuples(st.integers(1, 200), st.sampled_from(["a", "b", "c"]), st.integers(0, 5)),
    unique_by=lambda drawn: drawn[0],
    max_size=30,
).map(lambda rows: [summary(n, vm, generation=g) for n, vm, g in rows])


@given(points_of_vms, st.data())
def test_whatever_is_missing_is_planned_and_a_prefix_is_a_beginning(
    points: list[PointSummary], data: st.DataObject
) -> None:
    """Cut short anywhere, each VM has its oldest missing points, and none two more than another
    that still lacks some; a second plan is the rest."""
    there = data.draw(st.sets(st.sampled_from(points)) if points else st.just(set()))
    source = Stock(HERE, points)
    vms = {"a", "b", "c"}
    plan = plan_missing(source, Stock(THERE, [copy_of(p) for p in there]), vms)
    assert set(plan) == set(points) - there
    cut = data.draw(st.integers(0, len(plan)))
    for vm in vms:
        missing = sorted((p for p in plan if p.vm == vm), key=MADE)
        done = [p for p in plan[:cut] if p.vm == vm]
        assert done == missing[: len(done)]
        if len(done) < len(missing):
            others = [sum(p.vm == other for p in plan[:cut]) for other in vms]
            assert max(others) <= len(done) + 1
    made = Stock(THERE, [copy_of(p) for p in {*there, *plan[:cut]}])
    assert set(plan_missing(source, made, vms)) == set(plan[cut:])
    assert count_there(source, made, vms) == len(there) + cut


@given(points_of_vms)
def test_a_replica_that_follows_has_all_and_takes_nothing_back(points: list[PointSummary]) -> None:
    """Whatever is removed there but the newest two of each VM, as no retention takes them all."""
    source = Stock(HERE, points)
    vms = {"a", "b", "c"}
    plan = plan_newer(source, Stock(THERE, []), vms)
    assert set(plan) == set(points)
    newest = {max(own, key=MADE) for own in source.by_vm().values()}
    last = {max(own, key=lambda p: p.created) for own in source.by_vm().values()}
    assert plan_newer(source, Stock(THERE, [copy_of(p) for p in newest | last]), vms) == []


def test_only_what_was_asked_for() -> None:
    source = Stock(HERE, [summary(1), summary(2, "db"), summary(3), summary(4, "web01")])
    assert numbers(plan_missing(source, Stock(THERE, []), WEB)) == [1, 3]
    assert numbers(plan_missing(source, Stock(THERE, []), WEB, since=2.0)) == [3]
    assert numbers(plan_missing(source, Stock(THERE, []), {"web", "db"}, since=3.0)) == [3]


def test_copies_are_known_whichever_way_they_came() -> None:
    """A copy here of a point that is native there; and a copy there of the same third as here."""
    native = summary(1)
    third = b"3" * 16
    here = [copy_of(native, THERE), copy_of(summary(2), third), summary(3)]
    there = [native, copy_of(summary(2), third)._replace(point_id=b"x" * 16)]
    assert plan_missing(Stock(HERE, here), Stock(THERE, there), WEB) == [here[2]]
    # Another repository's point of the same id is another point.
    assert plan_missing(Stock(HERE, [native]), Stock(THERE, [native]), WEB) == [native]


def test_what_came_later_is_newer_by_either_order() -> None:
    """A commit of a live session is of an early generation; a clock put back makes points look
    old."""
    old, newest = summary(1), summary(10)
    branch = summary(11, generation=2)
    backwards = summary(5, generation=11, created=5.0)
    between = summary(6)
    source = Stock(HERE, [old, newest, branch, backwards, between])
    target = Stock(THERE, [copy_of(newest)])
    assert numbers(plan_newer(source, target, WEB)) == [11, 5]
    assert numbers(plan_newer(source, target, WEB, since=1e9)) == [11, 5]


def test_copying_in_order_goes_on_wherever_it_was_cut_short() -> None:
    """Also where something of an earlier generation was made later."""
    early = [summary(1, generation=0), summary(2, generation=1)]
    branch = summary(5, generation=1)
    source = Stock(HERE, [*early, branch, summary(3, generation=2), summary(4, generation=2)])
    plan = plan_newer(source, Stock(THERE, []), WEB)
    for done in range(len(plan) + 1):
        target = Stock(THERE, [copy_of(point) for point in plan[:done]])
        assert plan_newer(source, target, WEB) == plan[done:]


def test_a_vm_of_which_nothing_is_left_in_common() -> None:
    """What the replica has is gone here: only what is later than that; then what was asked for."""
    gone = copy_of(summary(10))
    source = Stock(HERE, [summary(8), summary(11), summary(9, generation=12)])
    assert numbers(plan_newer(source, Stock(THERE, [gone]), WEB)) == [11, 9]
    strange = copy_of(summary(10), b"z" * 16)
    assert numbers(plan_newer(source, Stock(THERE, [strange]), WEB)) == [8, 11, 9]
    assert numbers(plan_newer(source, Stock(THERE, []), WEB, since=9.0)) == [11, 9]


def test_the_base_is_the_parent_or_the_nearest() -> None:
    siblings = [summary(n) for n in (1, 2, 3, 4, 5)]
    ids = {n: n.to_bytes(16, "big") for n in range(10)}

    def base(point: int, parent: int | None, copied: set[int]) -> int | None:
        copies = {ids[n]: b"c" for n in copied}
        found = base_of(ids[point], None if parent is None else ids[parent], siblings, copies)
        return None if found is None else int.from_bytes(found, "big")

    assert base(4, 2, {1, 2, 3}) == 2
    assert base(4, 2, {1, 3, 5}) == 3
    assert base(4, 9, {1, 9}) == 9
    assert base(2, None, {4, 5}) == 4
    assert base(3, None, {3}) is None
    assert base(7, None, {1, 2}) == 2
