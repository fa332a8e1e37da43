"""When what died is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.nfs.restart_policy import STEADY_S, TRIES, RestartPolicy


def test_a_first_failure_costs_no_time() -> None:
    """A client waits for the restart; what ran well before is started at once, again and again."""
    policy = RestartPolicy()
    assert [policy.after_failure(STEADY_S) for _ in range(3 * TRIES)] == [0.0] * 3 * TRIES


@given(st.lists(st.floats(0, STEADY_S, exclude_max=True), min_size=TRIES, max_size=TRIES))
def test_quick_failures_in_a_row_are_given_up(lived: list[float]) -> None:
    """The pauses grow, and the last failure is one too many."""
    policy = RestartPolicy()
    *pauses, last = [policy.after_failure(lived_s) for lived_s in lived]
    assert last is None
    assert all(pause is not None for pause in pauses)
    assert pauses == sorted(pauses, key=lambda pause: pause or 0.0)


@given(st.lists(st.floats(0, 2 * STEADY_S)))
def test_a_steady_run_begins_a_new_row(lived: list[float]) -> None:
    """After it, all tries are there again."""
    policy = RestartPolicy()
    for lived_s in lived:
        policy.after_failure(lived_s)
    assert policy.after_failure(STEADY_S) == 0.0
    pauses = [policy.after_failure(0) for _ in range(TRIES - 1)]
    assert pauses.index(None) == TRIES - 2
