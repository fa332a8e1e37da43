"""What a repository asks of everybody: a minimum age that only rises, the parity set last."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import ObjectDamaged, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.policy import (
    MIN_AGE_MAX_S,
    Policy,
    parse_parity,
    put_policy,
    read_policy,
    read_policy_objects,
)
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import NOON, StandingClock, as_agent, assert_clean, new_repository

DAY = 86400.0
ages = st.floats(0, MIN_AGE_MAX_S)
schemes = st.none() | st.tuples(st.integers(1, 100), st.integers(1, 20))


def test_without_an_object_nothing_is_asked(repository: Repository) -> None:
    assert read_policy(repository.sealed) == Policy(0.0, None)


@given(
    stated=st.lists(
        st.tuples(st.builds(Policy, ages, schemes), st.floats(0, 4e9)), min_size=1, max_size=5
    )
)
def test_the_age_only_rises_and_the_last_parity_counts(
    stated: list[tuple[Policy, float]],
) -> None:
    """Whatever the clocks of those who set it did."""
    clock = StandingClock()
    repository = new_repository(MemoryStore(), clock)
    for number, (policy, now) in enumerate(stated, 1):
        clock.now = now
        told = put_policy(repository.sealed, policy, clock)
        oldest = max(said.min_age_s for said, _ in stated[:number])
        assert told == read_policy(as_agent(repository).sealed) == Policy(oldest, policy.parity)
    assert len(read_policy_objects(repository.sealed)) == len(stated)
    assert_clean(repository)


def test_the_store_s_other_names_are_passed_over(repository: Repository) -> None:
    put_policy(repository.sealed, Policy(DAY), lambda: NOON)
    repository.sealed.store.put("policy/readme", [b"mine"])
    assert read_policy(repository.sealed) == Policy(DAY, None)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(-1.0),
        Policy(math.nan),
        Policy(math.inf),
        Policy(MIN_AGE_MAX_S * 1.01),
        Policy(0.0, (0, 1)),
        Policy(0.0, (101, 1)),
        Policy(0.0, (1, 0)),
        Policy(0.0, (1, 21)),
    ],
)
def test_the_impossible_is_refused(repository: Repository, policy: Policy) -> None:
    with pytest.raises(UsageError):
        put_policy(repository.sealed, policy, lambda: NOON)
    assert read_policy_objects(repository.sealed) == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"min_age_s": 1, "parity": None, "set": NOON},
        {"min_age_s": -1.0, "parity": None, "set": NOON},
        {"min_age_s": math.nan, "parity": None, "set": NOON},
        {"min_age_s": 1e300, "parity": None, "set": NOON},
        {"min_age_s": 1.0, "parity": [1], "set": NOON},
        {"min_age_s": 1.0, "parity": [1, 2, 3], "set": NOON},
        {"min_age_s": 1.0, "parity": [True, 1], "set": NOON},
        {"min_age_s": 1.0, "parity": [0, 1], "set": NOON},
        {"min_age_s": 1.0, "parity": None, "set": math.nan},
        {"min_age_s": 1.0, "parity": None},
    ],
)
def test_one_that_says_nonsense_is_damage(repository: Repository, fields: dict[str, Any]) -> None:
    """And is not passed over: it might have asked for more than the others."""
    put_policy(repository.sealed, Policy(DAY), lambda: NOON)
    repository.sealed.put(Kind.POLICY, "ab" * 16, encode_record(fields))
    with pytest.raises(ObjectDamaged, match="policy/abab"):
        read_policy(repository.sealed)
    with pytest.raises(ObjectDamaged):
        put_policy(repository.sealed, Policy(2 * DAY), lambda: NOON)


@pytest.mark.parametrize("text", ["", "10", "10+", "+2", "10-2", "0+1", "10+21", "1000+2", "x+y"])
def test_parity_is_parsed(text: str) -> None:
    assert parse_parity(" 10+2 ") == (10, 2)
    with pytest.raises(UsageError):
        parse_parity(text)
