"""What vCenter is doing with an object now: its tasks that have not ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from backpoint_agent.errors import ObjectGone
from backpoint_agent.vsphere.vcenter import VCenter

_TASKS_MAX: Final = 100
"""vCenter lists a few recent ones."""


def unfinished_tasks(vcenter: VCenter, entity: Any) -> Iterator[str]:
    """Kinds of the object's tasks that wait or run ("VirtualMachine.createSnapshot").

    Raises as `VCenter.call`, but nothing where the object is gone.
    """
    try:
        tasks = vcenter.call("looking for running tasks", lambda: entity.recentTask)
    except ObjectGone:
        return
    for task in list(tasks or ())[:_TASKS_MAX]:
        info = _task_info(vcenter, task)
        if info is not None and info.state in ("queued", "running"):
            yield str(info.descriptionId)[:100]


def _task_info(vcenter: VCenter, task: Any) -> Any:
    try:
        return vcenter.call("looking at a task", lambda: task.info)
    except ObjectGone:
        return None
