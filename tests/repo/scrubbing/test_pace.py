"""The bucket's arithmetic, with a clock that moves only when somebody sleeps or a test says so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.scrubbing.pace import Pace


class SleepingClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(0, 10**8), st.floats(0, 100)), min_size=1, max_size=40),
)
def test_never_more_than_the_rate_however_long_nobody_asked(
    rate: int, takes: list[tuple[int, float]]
) -> None:
    """From any moment on; idle time before it gives no right to more."""
    clock = SleepingClock()
    pace = Pace(rate, clock, clock.sleep)
    began = []
    for size, idle_s in takes:
        clock.now += idle_s
        pace.take(size)
        began.append((clock.now, size))
    for first in range(len(began)):
        done = 0
        for now, size in began[first:]:
            # What is being read when we look is not done yet.
            assert done <= rate * (now - began[first][0]) * (1 + 1e-9) + 1e-3 * rate
            done += size


@given(st.integers(1, 10**6), st.lists(st.integers(1, 10**6), min_size=1, max_size=40))
def test_who_always_asks_gets_all_of_the_rate(rate: int, sizes: list[int]) -> None:
    clock = SleepingClock()
    pace = Pace(rate, clock, clock.sleep)
    for size in sizes:
        pace.take(size)
    assert abs(clock.now - 100.0 - sum(sizes[:-1]) / rate) < 1e-6 * sum(sizes) / rate + 1e-6


def test_a_sleep_that_ends_early_lets_the_reader_look_around() -> None:
    clock = SleepingClock()
    slept: list[float] = []
    pace = Pace(100, clock, slept.append)
    pace.take(1000)
    pace.take(1000)
    pace.take(1)
    assert slept == [10.0, 20.0]
