"""Jobs side by side: in order, bounded, and nobody waits for other callers' jobs alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from backpoint_repo.fetch_lanes import FetchLanes

PATIENCE_S = 60.0


def test_results_come_in_order_and_jobs_run_together() -> None:
    together = threading.Barrier(4)

    def job(number: int) -> int:
        together.wait(PATIENCE_S)
        return number

    lanes = FetchLanes(3)  # and the caller
    for _ in range(20):
        assert lanes.each([partial(job, number) for number in range(8)]) == list(range(8))
    assert lanes.each([]) == []


def test_no_more_run_at_once_than_lanes_and_callers() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def job() -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        found = sum(range(5000))
        with lock:
            running[0] -= 1
        return found

    lanes, callers = FetchLanes(3), 4
    in_parallel([lambda: lanes.each([job] * 100)] * callers)
    assert most[0] <= 3 + callers


def test_without_lanes_the_caller_does_it_all() -> None:
    here = threading.current_thread()
    found = FetchLanes(1).each([threading.current_thread] * 5)
    assert found == [here] * 5


def test_an_error_is_raised_when_all_that_began_is_done() -> None:
    together, began, ended = threading.Barrier(3), list[int](), list[int]()

    def job(number: int) -> None:
        began.append(number)
        together.wait(PATIENCE_S)
        if number == 1:
            raise OSError("the second")
        ended.append(number)

    with pytest.raises(OSError, match="the second"):
        FetchLanes(2).each([partial(job, number) for number in range(3)])
    assert sorted(began) == [0, 1, 2]
    assert sorted(ended) == [0, 2]


def test_who_calls_while_all_lanes_are_taken_does_it_alone() -> None:
    """Nobody waits for jobs of others that may take for ever; and after an error nothing begins."""
    taken, release, began = threading.Barrier(4), threading.Event(), list[str]()

    def hang() -> None:
        taken.wait(PATIENCE_S)
        release.wait(PATIENCE_S)

    def fail() -> None:
        raise OSError("no")

    lanes = FetchLanes(2)
    other = threading.Thread(target=lambda: lanes.each([hang] * 3))
    other.start()
    taken.wait(PATIENCE_S)
    try:
        assert lanes.each([lambda: 1, lambda: 2, lambda: 3]) == [1, 2, 3]
        first, last = partial(began.append, "one"), partial(began.append, "two")
        jobs: list[Callable[[], None]] = [first, fail, last]
        with pytest.raises(OSError, match="no"):
            lanes.each(jobs)
        assert began == ["one"]
    finally:
        release.set()
        other.join(PATIENCE_S)


def test_a_job_may_have_jobs() -> None:
    lanes = FetchLanes(2)

    def outer(number: int) -> list[int]:
        return lanes.each([partial(int, number), partial(int, number + 1)])

    assert lanes.each([partial(outer, n) for n in range(10)]) == [[n, n + 1] for n in range(10)]


def in_parallel(jobs: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
