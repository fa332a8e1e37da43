"""Which packs go: properties that hold for all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.collecting.pack_usage import suspects
from backpoint_repo.collecting.plan import (
    SMALL,
    SMALL_MANY,
    SPARSE_WASTE,
    PackUsage,
    plan_collection,
)
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.pack import PACK_SIZE

_BYTES = st.integers(0, 2 * PACK_SIZE) | st.sampled_from([0, 1, SMALL - 1, SMALL, PACK_SIZE])


@st.composite
def usages(draw: st.DrawFn) -> list[PackUsage]:
    names = draw(st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=30))
    found = []
    for name in names:
        live, waste = draw(_BYTES), draw(_BYTES)
        kind = draw(st.sampled_from([Kind.DATA_PACK, Kind.NODE_PACK]))
        held = draw(st.none() | st.just("somebody writes to it"))
        size = live + waste + 300
        judged = draw(st.booleans()) or live == 0
        found.append(PackUsage(PackRef(kind, name), size, live, waste, 1, judged, held))
    return found


_LIMIT = st.none() | _BYTES


@given(usages(), _LIMIT)
def test_a_plan(found: list[PackUsage], limit: int | None) -> None:
    plan = plan_collection(found, limit)
    everything = [*plan.dead, *plan.repack, *plan.kept]
    assert sorted(one.usage.pack for one in everything) == sorted(one.pack for one in found)
    assert {one.usage for one in everything} == set(found)
    assert all(one.reason for one in everything)
    going = [one.usage for one in (*plan.dead, *plan.repack)]
    assert all(one.held is None and one.judged for one in going)
    assert {one.usage for one in plan.dead} == {
        one for one in found if one.live == 0 and one.held is None
    }
    assert limit is None or plan.copied <= limit
    assert plan.copied == sum(one.usage.live for one in plan.repack)
    worth = [one.usage for one in plan.repack]
    assert all(
        one.waste >= SPARSE_WASTE * (one.live + one.waste) or one.size < SMALL for one in worth
    )


@given(usages())
def test_without_a_limit_nothing_sparse_stays(found: list[PackUsage]) -> None:
    """And the most is won for each byte first."""
    plan = plan_collection(found, None)
    kept = [one.usage for one in plan.kept if one.usage.held is None and one.usage.judged]
    assert not [one for one in kept if one.waste > one.live]
    sparse = [one.usage for one in plan.repack if one.usage.sparse]
    gains = [one.waste / one.live for one in sparse]
    assert gains == sorted(gains, reverse=True)


@given(usages(), _LIMIT)
def test_what_goes_was_looked_into(found: list[PackUsage], limit: int | None) -> None:
    """Whatever a plan takes of packs as the index knows them is among the suspects."""
    plan = plan_collection(found, limit)
    looked_into = set(suspects(found, limit))
    assert {one.usage for one in plan.dead} <= looked_into
    if limit is None:
        assert {one.usage for one in plan.repack} <= looked_into


def test_small_packs_are_merged_when_it_is_worth_it() -> None:
    def small(count: int, size: int, keys: int = 1) -> list[PackUsage]:
        names = [number.to_bytes(16, "big") for number in range(count)]
        return [
            PackUsage(PackRef(Kind.DATA_PACK, n), size, size, 0, keys, judged=True) for n in names
        ]

    assert not plan_collection(small(SMALL_MANY - 1, 1000), None).repack
    assert len(plan_collection(small(SMALL_MANY, 1000), None).repack) == SMALL_MANY
    enough = PACK_SIZE // (SMALL - 1) + 1
    assert len(plan_collection(small(enough, SMALL - 1), None).repack) == enough
    # What is small because it lists as many keys as it may would only be copied over and over.
    assert not plan_collection(small(SMALL_MANY, 1000, keys=256), None).repack
