"""How packs are put into groups: all of them, once, cheaply, and none anew for nothing."""

from __future__ import annotations

from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.parity.coverage import coverage_of, what_lacks
from backpoint_repo.parity.group import MEMBER_SIZE_MAX, Group, Member, Spare
from backpoint_repo.parity.group_writer import StoredPack
from backpoint_repo.parity.plan import Plan, plan_parting, plan_upkeep

Spares = dict[Group, frozenset[bytes]]
PACKS = st.dictionaries(
    st.builds(
        PackRef,
        st.sampled_from([Kind.DATA_PACK, Kind.NODE_PACK]),
        st.binary(min_size=16, max_size=16),
    ),
    st.integers(24, MEMBER_SIZE_MAX),
    max_size=40,
)
SCHEMES = st.tuples(st.integers(1, 12), st.integers(1, 4))


def made(parts: tuple[tuple[StoredPack, ...], ...], spares: int, first: int = 0) -> Spares:
    """Groups of these packs; digests do not matter to a plan."""
    numbers = count(first)
    groups: Spares = {}
    for part in parts:
        names = [next(numbers).to_bytes(16, "big") for _ in range(spares)]
        members = tuple(Member(pack.pack, pack.size, b"") for pack in part)
        groups[Group(1 << 20, members, tuple(Spare(name, b"") for name in names))] = frozenset(
            names
        )
    return groups


def covered(plan: Plan) -> Counter[PackRef]:
    kept = Counter(pack for group in plan.keep for pack in group.packs)
    return kept + Counter(pack.pack for part in plan.build for pack in part)


@given(PACKS, SCHEMES)
def test_every_pack_is_planned_once_and_the_next_plan_is_empty(
    fit: dict[PackRef, int], scheme: tuple[int, int]
) -> None:
    plan = plan_upkeep(fit, {}, scheme)
    assert covered(plan) == Counter(fit.keys())
    assert sum(len(part) < scheme[0] for part in plan.build) <= 1
    groups = made(plan.build, scheme[1])
    again = plan_upkeep(fit, groups, scheme)
    assert not again.build
    assert not again.stale
    assert set(again.keep) == set(groups)
    full = coverage_of(again.keep, fit, [], [])
    assert full.covered_packs == len(fit)
    assert full.bare_bytes == 0
    assert full.spare_bytes == plan.written_bytes(scheme[1])


@given(PACKS, SCHEMES, st.data())
def test_what_changes_moves_no_full_group(
    fit: dict[PackRef, int], scheme: tuple[int, int], data: st.DataObject
) -> None:
    """Packs come and go, spares are lost: groups that are as they were stay, all others are
    replaced, and all that is there is planned once."""
    groups = made(plan_upkeep(fit, {}, scheme).build, scheme[1])
    gone = data.draw(st.sets(st.sampled_from(sorted(fit)), max_size=3)) if fit else set[PackRef]()
    new = data.draw(PACKS)
    later = {pack: size for pack, size in {**new, **fit}.items() if pack not in gone}
    spoilt = set[Group]()
    for group in groups:
        if data.draw(st.integers(0, 9)) == 0:
            groups[group] = frozenset()
            spoilt.add(group)
    plan = plan_upkeep(later, groups, scheme)
    assert covered(plan) == Counter(later.keys())
    assert set(plan.keep) | set(plan.stale) == set(groups)
    for group in groups:
        sound = group not in spoilt and group.packs <= later.keys()
        if len(group.packs) == scheme[0]:
            assert (group in plan.keep) == sound
        assert group not in plan.keep or sound


@given(PACKS, SCHEMES)
def test_of_two_groups_with_the_same_packs_one_stays(
    fit: dict[PackRef, int], scheme: tuple[int, int]
) -> None:
    parts = plan_upkeep(fit, {}, scheme).build
    twice = made(parts, scheme[1]) | made(parts, scheme[1], first=1000)
    plan = plan_upkeep(fit, twice, scheme)
    assert not plan.build
    assert covered(plan) == Counter(fit.keys())
    for group in plan.stale:
        parting = plan_parting(group, fit, plan.keep)
        assert not parting.gone
        assert not parting.bare
        alone = plan_parting(group, fit.keys() - {group.members[0].pack}, ())
        assert alone.gone == {group.members[0].pack}
        assert alone.bare == group.packs - alone.gone


def test_packs_of_like_size_share_a_group() -> None:
    """A spare is as large as the largest: small packs cost nothing beside small ones."""
    sizes = [30, 24, 1 << 20, 28, 1 << 19, 1 << 20]
    fit = {PackRef(Kind.DATA_PACK, bytes([n] * 16)): size for n, size in enumerate(sizes)}
    plan = plan_upkeep(fit, {}, (3, 2))
    assert [sorted(pack.size for pack in part) for part in plan.build] == [
        [1 << 19, 1 << 20, 1 << 20],
        [24, 28, 30],
    ]
    assert plan.read_bytes == sum(sizes)
    assert plan.written_bytes(2) == 2 * ((1 << 20) + 30)


def test_too_large_packs_and_no_scheme() -> None:
    small, large = (PackRef(Kind.DATA_PACK, bytes([n] * 16)) for n in range(2))
    fit = {small: 100, large: MEMBER_SIZE_MAX + 1}
    plan = plan_upkeep(fit, {}, (3, 2))
    assert covered(plan) == Counter([small])
    assert [pack.pack for pack in plan.too_large] == [large]
    groups = made(plan.build, 2)
    off = plan_upkeep(fit, groups, None)
    assert (off.keep, off.build, off.stale) == ((), (), tuple(groups))


def test_what_a_group_lacks_is_told() -> None:
    fit = {PackRef(Kind.DATA_PACK, bytes([n] * 16)): 100 for n in range(3)}
    groups = made(plan_upkeep(fit, {}, (3, 2)).build, 2)
    assert not [*what_lacks(groups, fit)]
    (group,) = groups
    shorter = {**fit, group.members[0].pack: 99}
    (told,) = what_lacks({group: [group.spares[0].name]}, shorter)
    assert "lacks 1 of its 3 packs" in told
    assert "1 of its 2 spares" in told
