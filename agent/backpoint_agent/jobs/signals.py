"""SIGINT and SIGTERM become a request to stop; a second one only says what is still being done."""

from __future__ import annotations

import signal

import trio

from backpoint_agent.stopping import Stop
from backpoint_repo.terminal import say


async def stop_on_signals(
    stop: Stop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Until cancelled."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            if stop.reason is None:
                say("stopping: snapshots are removed first; press again to see why it takes long")
                stop.request("interrupted" if number == signal.SIGINT else "terminated")
            else:
                say(
                    "still clearing up; killed now, what is left is removed by the next run or by "
                    "`backpoint agent reap`"
                )
