"""The audit's sample keeps its promise: any R incrementals look at the share P of the disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.audit_sample import UNIT, plan_sample, sample_size


@given(
    units=st.integers(1, 300),
    tail=st.integers(1, UNIT),
    probability=st.floats(0.01, 1),
    runs=st.integers(1, 40),
    first=st.integers(0, 10**6),
    secret=st.binary(max_size=8),
)
def test_any_runs_in_a_row_cover_the_share(
    units: int, tail: int, probability: float, runs: int, first: int, secret: bytes
) -> None:
    """At least P of the units are looked at, each once before any twice."""
    size = (units - 1) * UNIT + tail
    seen: list[tuple[int, int]] = []
    for generation in range(first, first + runs):
        sample = plan_sample(size, probability, runs, generation, secret)
        assert all(offset % UNIT == 0 and offset + length <= size for offset, length in sample)
        assert sample == sorted(sample)
        assert len(sample) == min(units, sample_size(size, probability, runs))
        seen += sample
    distinct = set(seen)
    assert len(distinct) >= probability * units
    assert len(distinct) == min(units, len(seen))


def test_the_size_is_what_is_promised() -> None:
    """0.9 within 30 runs is 3 % a run, and 0 is nothing."""
    size = 100 << 30
    assert sample_size(size, 0.9, 30) == 3072
    assert plan_sample(size, 0, 30, 1, b"") == []
    assert plan_sample(0, 1, 1, 1, b"") == []


def test_the_order_is_not_foreseen() -> None:
    """Another secret, another sample."""
    size = 10_000 * UNIT
    samples = {tuple(plan_sample(size, 0.1, 10, 3, bytes([n]))) for n in range(20)}
    assert len(samples) == 20
