"""SIGINT and SIGTERM become a request to stop; a second one only says what is still being done."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from backpoint_agent.stopping import Stop
from backpoint_repo.terminal import say

T = TypeVar("T")
_REASONS: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_BY_SIGNAL: Final = 128


def run_stoppable(stop: Stop, work: Callable[[], Awaitable[T]]) -> T:
    """Run it in trio; whether a signal asked for its end, `stop` says. Raises what it raises."""

    async def beside_signals() -> T:
        async with trio.open_nursery() as nursery:
            await nursery.start(_stop_on_signals, stop)
            done = await work()
            nursery.cancel_scope.cancel()
        return done

    try:
        return trio.run(beside_signals)
    except BaseExceptionGroup as group:
        (error,) = group.exceptions  # the work's: waiting for signals fails in no way
        raise error from None


def stopped_code(stop: Stop) -> int | None:
    """The exit code of a process that a signal has stopped; None where none has."""
    for number, reason in _REASONS.items():
        if stop.reason == reason:
            return _BY_SIGNAL + number
    return None


async def _stop_on_signals(
    stop: Stop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(*_REASONS) as received:
        task_status.started()
        async for number in received:
            if stop.reason is None:
                say("stopping: snapshots are removed first; press again to see why it takes long")
                stop.request(_REASONS[signal.Signals(number)])
            else:
                say(
                    "still clearing up; killed now, what is left is removed by the next run or by "
                    "`backpoint agent reap`"
                )
