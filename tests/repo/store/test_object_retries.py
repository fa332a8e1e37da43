"""Pauses between tries: growing, not all alike, and not for ever."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import StoreDenied, StoreMisconfigured
from backpoint_repo.store.object_faults import Temporary
from backpoint_repo.store.object_retries import (
    FIRST_PATIENCE_S,
    FIRST_PAUSE_S,
    PATIENCE_S,
    PAUSE_MAX_S,
    Retries,
    plan_pauses,
)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=20, max_size=20))
def test_pauses_grow_to_a_limit(chances: list[float]) -> None:
    pauses = list(islice(plan_pauses(iter(chances).__next__), 20))
    for number, pause in enumerate(pauses):
        longest = min(FIRST_PAUSE_S * 2**number, PAUSE_MAX_S)
        assert longest / 2 <= pause <= longest


def test_one_that_answered_is_waited_for_longer() -> None:
    def fail() -> None:
        raise Temporary("no")

    pauses: list[float] = []
    retries = Retries(pauses.append)
    with pytest.raises(Temporary):
        retries.run(fail)
    assert FIRST_PATIENCE_S / 3 < sum(pauses) < FIRST_PATIENCE_S
    assert retries.run(lambda: 5) == 5
    pauses.clear()
    with pytest.raises(Temporary):
        retries.run(fail)
    assert PATIENCE_S - PAUSE_MAX_S < sum(pauses) < PATIENCE_S


def test_what_it_is_in_the_end() -> None:
    def fail() -> None:
        fault = Temporary("the name cannot be resolved")
        fault.final = StoreMisconfigured("the address is wrong")
        raise fault

    with pytest.raises(StoreMisconfigured):
        Retries(lambda _: None).run(fail)


def test_what_does_not_pass_is_not_tried_again() -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise StoreDenied("no")

    with pytest.raises(StoreDenied):
        Retries(lambda _: None).run(fail)
    assert tries == [1]


def test_an_object_store_that_says_that_it_is_busy_is_there() -> None:
    def fail() -> None:
        fault = Temporary("slow down")
        fault.there = True
        raise fault

    pauses: list[float] = []
    with pytest.raises(Temporary):
        Retries(pauses.append).run(fail)
    assert sum(pauses) > FIRST_PATIENCE_S
