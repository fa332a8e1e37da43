"""Waiting for vCenter's tasks: with a limit, answering the VM's questions meanwhile, never deaf.

Decides how often to look and what a task's end means. Refuses to know what the task does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pyVmomi import vmodl

from backpoint_agent.errors import (
    CannotConnect,
    ObjectGone,
    Stopped,
    TaskFailed,
    VSphereError,
    WaitTooLong,
)
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.faults import error_of, faults_of, with_faults
from backpoint_agent.vsphere.vcenter import VCenter

FIRST_LOOK_S: Final = 0.05
LOOK_S: Final = 0.5
CANCEL_LIMIT_S: Final = 2.0
"""How long a cancelled task is looked at, so that the error can say whether it has ended."""
OUTAGE_LIMIT_S: Final = 900.0
"""How long a vCenter may be silent while a task runs: its services restart in about ten minutes,
and the host goes on with the task meanwhile."""
_ENDED: Final = ("success", "error")


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
    on_wait: called at each look, about twice a second (questions are answered there); what it
    raises ends the wait and leaves the task running.
    A vCenter that does not answer meanwhile is waited for, OUTAGE_LIMIT_S at most.
    Raises WaitTooLong, Stopped, and as `VCenter.call` by what the task failed with. CannotConnect:
    the connection broke, and the task may have been started (it is never started twice), or may be
    running still: look at the VM.
    """
    if stop is not None:
        stop.check()
    task = _start(vcenter, what, start)
    waiting = _Waiting(vcenter, what, task, time.monotonic() + limit_s)
    look_s = FIRST_LOOK_S
    while True:
        info = waiting.look()
        if info is not None and info.state in _ENDED:
            return _end(vcenter, what, info)
        if info is not None and on_wait is not None:
            on_wait()
        left = waiting.give_up_at - time.monotonic()
        if left <= 0:
            fate = waiting.cancel()
            raise WaitTooLong(f"{vcenter.name}: {what} took longer than {limit_s:g} s; {fate}")
        try:
            (stop or Stop()).wait(min(look_s, left))
        except Stopped as reason:
            stopped = str(reason)
            break
        look_s = min(look_s * 2, LOOK_S)
    raise Stopped(f"{stopped}, while {what}; {waiting.cancel()}")


@dataclass
class _Waiting:
    """A task under way. give_up_at: monotonic seconds. info: of the last look that was answered."""

    vcenter: VCenter
    what: str
    task: Any
    give_up_at: float
    info: Any = None
    unheard_since: float | None = None

    def look(self) -> Any:
        """TaskInfo; None where vCenter could not be reached, for a time that may yet pass."""
        try:
            self.info = _look(self.vcenter, self.what, self.task)
        except CannotConnect:
            now = time.monotonic()
            self.unheard_since = self.unheard_since or now
            if now > min(self.give_up_at, self.unheard_since + OUTAGE_LIMIT_S):
                raise
            return None
        self.unheard_since = None
        return self.info

    def cancel(self) -> str:
        """What became of the task that nobody waits for any more."""
        if self.info is not None and not self.info.cancelable:
            return "vCenter does not let it be cancelled, so it is still running"
        give_up_at = time.monotonic() + CANCEL_LIMIT_S
        try:
            self.vcenter.call(f"cancelling {self.what}", self.task.CancelTask, repeat=False)
            while (info := _look(self.vcenter, self.what, self.task)).state not in _ENDED:
                if time.monotonic() > give_up_at:
                    return "it was told to end, and may still be running"
                Stop().wait(FIRST_LOOK_S)
        except VSphereError as failure:
            return f"it may still be running ({failure})"
        if info.state == "success":
            return "it had ended just then"
        by_us = isinstance(info.error, vmodl.fault.RequestCanceled)
        return "it was cancelled" if by_us else "it failed just then"


def _start(vcenter: VCenter, what: str, start: Callable[[], Any]) -> Any:
    try:
        return vcenter.call(what, start, repeat=False)
    except CannotConnect as cut:
        reason, faults = str(cut), faults_of(cut)
    raise with_faults(CannotConnect(f"{reason}; it may have been started all the same"), faults)


def _look(vcenter: VCenter, what: str, task: Any) -> Any:
    try:
        return vcenter.call(f"waiting for {what}", lambda: task.info)
    except ObjectGone as gone:
        faults = faults_of(gone)
    lost = TaskFailed(
        f"{vcenter.name}: {what}: vCenter forgot the task, as by a restart; its outcome is unknown"
    )
    raise with_faults(lost, faults)


def _end(vcenter: VCenter, what: str, info: Any) -> TaskEnd:
    if info.state == "error":
        if info.error is None:
            raise TaskFailed(f"{vcenter.name}: {what}: failed, and vCenter does not say why")
        raise error_of(f"{vcenter.name}: {what}", info.error, vcenter.name_of)
    seconds = 0.0
    if info.startTime is not None and info.completeTime is not None:
        seconds = max(0.0, (info.completeTime - info.startTime).total_seconds())
    return TaskEnd(info.result, seconds)
