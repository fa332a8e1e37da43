"""Which blobs come with one request."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.format import Kind
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.range_plan import FAR, NEAR, Reach, plan_ranges, reach_of

PACKS = [PackRef(Kind.DATA_PACK, bytes([number] * 16)) for number in range(3)]
places = st.builds(Location, st.sampled_from(PACKS), st.integers(0, 5000), st.integers(1, 900))
reaches = st.builds(Reach, st.integers(0, 300), st.integers(1, 3000))


@given(st.lists(st.none() | places, max_size=40), reaches)
def test_every_place_is_in_one_group_and_groups_keep_to_the_reach(
    wanted: list[Location | None], reach: Reach
) -> None:
    groups = list(plan_ranges(wanted, reach))
    assert sorted(at for group in groups for at in group) == [
        at for at, place in enumerate(wanted) if place is not None
    ]
    for group in groups:
        found = [place for at in group if (place := wanted[at])]
        assert len({place.pack for place in found}) == 1
        for before, after in pairwise(found):
            assert before.offset <= after.offset <= before.offset + before.length + reach.gap
            assert after.offset + after.length - found[0].offset <= reach.longest


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), reaches)
def test_no_two_groups_could_have_been_one(lengths: list[int], reach: Reach) -> None:
    """Of blobs that lie one behind the other."""
    offsets = [sum(lengths[:at]) for at in range(len(lengths))]
    wanted = [Location(PACKS[0], *both) for both in zip(offsets, lengths, strict=True)]
    groups = list(plan_ranges(wanted, reach))
    for group, following in pairwise(groups):
        first, left = wanted[group[0]], wanted[following[0]]
        assert left.offset + left.length - first.offset > reach.longest


def test_what_waits_for_a_network_asks_less_often() -> None:
    assert reach_of(1) == NEAR
    assert reach_of(16) == FAR
    assert FAR.gap > NEAR.gap
