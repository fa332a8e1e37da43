"""Which packs a scrub reads, for any ages."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.scrubbing.plan import plan_scrub

NOW = 1000.0
AGES = st.lists(st.one_of(st.just(-math.inf), st.floats(0, 1100)), max_size=30)


def packs_of(count: int) -> list[PackRef]:
    return [PackRef(Kind.DATA_PACK, bytes([number]) * 16) for number in range(count)]


@given(AGES, st.floats(0, 1200))
def test_what_is_due_and_nothing_else_is_read_in_the_order_given(
    last_good: list[float], every_s: float
) -> None:
    packs = packs_of(len(last_good))
    plan = plan_scrub(packs, np.array(last_good), NOW, every_s, oldest_first=False)
    due = [pack for pack, at in zip(packs, last_good, strict=True) if NOW - at > every_s]
    assert plan == due
    never = [pack for pack, at in zip(packs, last_good, strict=True) if at == -math.inf]
    assert set(never) <= set(plan)


@given(AGES, st.floats(0, 1200))
def test_oldest_first_reads_everything_once_by_age(last_good: list[float], every_s: float) -> None:
    packs = packs_of(len(last_good))
    plan = plan_scrub(packs, np.array(last_good), NOW, every_s, oldest_first=True)
    assert sorted(plan) == sorted(packs)
    age = dict(zip(packs, last_good, strict=True))
    read = [age[pack] for pack in plan]
    assert read == sorted(read)


def test_what_a_run_read_is_not_due_in_the_next() -> None:
    packs = packs_of(3)
    last_good = np.array([-math.inf, NOW - 50, NOW - 5])
    assert plan_scrub(packs, last_good, NOW, 10, oldest_first=False) == packs[:2]
    last_good[:2] = NOW
    assert plan_scrub(packs, last_good, NOW, 10, oldest_first=False) == []
