"""Waiting for vCenter's tasks: with a limit, answering the VM's questions meanwhile, never deaf.

Decides how often to look and what a task's end means. Refuses to know what the task does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.vcenter import VCenter


@dataclass(frozen=True)
class TaskEnd:
    """result: of the task; seconds: from its start to its end as vCenter's own clock has it."""

    result: Any
    seconds: float


def run_task(
    vcenter: VCenter,
    what: str,
    start: Callable[[], Any],
    *,
    limit_s: float,
    stop: Stop | None,
    on_wait: Callable[[], None] | None = None,
) -> TaskEnd:
    """Start a task ("removing the snapshot of web01") and wait for its end.

    stop: None for clearing up, which is not stopped by a request. A stop or the limit cancels the
    task where vCenter lets it be cancelled, and says in the error whether it may still be running.
    on_wait: called at each look, about twice a second (questions are answered there).
    Raises WaitTooLong, Stopped, and as `VCenter.call` by what the task failed with.
    """
    raise NotImplementedError
