"""What members of a group get: their moment, their memory, their addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.boot.group_file import Member, Ready
from backpoint_fusefs.boot.group_plan import (
    card_address,
    plan_memory,
    probe_addresses,
    starts_at,
)
from backpoint_fusefs.boot.hardware import MEMORY_MIN

SIZES = st.integers(MEMORY_MIN, 1 << 16)


def test_a_member_starts_once_the_last_of_those_before_it_is_ready() -> None:
    """And its wait is over; without any before it, from the beginning."""
    member = Member(point="a", after=["b", "c"], wait=5.0)
    assert starts_at(member, 100.0, {"b": 110.0}) is None
    assert starts_at(member, 100.0, {"b": 110.0, "c": 103.0, "d": 200.0}) == 115.0
    assert starts_at(Member(point="a", wait=2.0), 100.0, {}) == 102.0


@given(st.lists(st.tuples(st.none() | SIZES, SIZES), min_size=1), st.integers(0, 1 << 18))
def test_memory(members: list[tuple[int | None, int]], room: int) -> None:
    """Who asks gets it; the others what they had where it fits, else no more than is there."""
    planned = plan_memory([word for word, _ in members], [was for _, was in members], room)
    others = []
    for gets, (word, was) in zip(planned, members, strict=True):
        if word is None:
            others.append((gets, was))
        else:
            assert gets == word
    assert all(MEMORY_MIN <= gets <= was for gets, was in others)
    left = max(0, room - sum(word for word, _ in members if word is not None))
    if sum(was for _, was in others) <= left:
        assert all(gets == was for gets, was in others)
    else:
        assert sum(gets for gets, _ in others) <= left + MEMORY_MIN * len(others)


@given(st.lists(st.integers(1, 254), min_size=1, max_size=64, unique=True))
def test_addresses_are_nobodys(hosts: list[int]) -> None:
    """Whoever asks at a port has an address near the guest's, and none of a member or another's."""
    members = [
        Member(point=f"vm{host}", address=f"10.1.2.{host}", ready=Ready(port=80)) for host in hosts
    ]
    found = probe_addresses([*members, Member(point="other", address="10.1.2.3")])
    assert set(found) == {member.title for member in members}
    first = [addresses[0] for addresses in found.values()]
    taken = {member.address for member in members} | {"10.1.2.3"}
    assert len(set(first)) == len(first)
    assert all(str(one) not in taken for addresses in found.values() for one in addresses)
    assert all(str(one).startswith("10.1.2.") for one in first)


def test_cards_have_addresses_of_their_own() -> None:
    """Of one card each, none of a group."""
    addresses = {card_address(number) for number in range(300)}
    assert len(addresses) == 300
    assert all(not int(address[:2], 16) & 1 for address in addresses)
