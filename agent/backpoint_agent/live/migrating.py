"""A VM that runs from the backup moved to a production datastore, while it runs.

Decides when it has arrived: no file of it is where the backup is. Then it is marked as nobody's any
more, so that nothing of ours touches it again. What it leaves is cleared up by `known_sessions`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from pyVmomi import vim

from backpoint_agent.errors import ObjectGone, TaskFailed, WaitTooLong
from backpoint_agent.live.judgement import touches
from backpoint_agent.live.live_facts import LiveFacts
from backpoint_agent.live.live_look import find_live, names_of_export
from backpoint_agent.live.vmx_plan import MARK
from backpoint_agent.machine import Machine
from backpoint_agent.reaping.apply import Means
from backpoint_agent.restoring.destination import choose_place
from backpoint_agent.restoring.places import Datastore, PossiblePlaces
from backpoint_agent.vsphere.running_tasks import unfinished_tasks
from backpoint_agent.vsphere.tasks import LOOK_S, run_task
from backpoint_repo.errors import UsageError

_MOVING: Final = ("relocate", "migrate")

Advance = Callable[[int], None]
"""Called with percent done since the last call."""


def plan_target(
    places: PossiblePlaces, machine: Machine, facts: LiveFacts, wanted: str
) -> Datastore:
    """Where to. Raises UsageError where the VM's host cannot have it there. Pure."""
    hosts = [
        h for h in places.hosts if (h.name, h.datacenter) == (machine.host, machine.datacenter)
    ]
    reached = {moref for host in hosts for moref in host.datastores}
    there = [
        datastore
        for datastore in places.datastores
        if datastore.moref in reached and datastore.name != facts.datastore
    ]
    target = choose_place(there, wanted, "", "datastore", "--datastore")
    if not target.accessible:
        raise UsageError(f"the datastore {target.name} is not accessible")
    return target


def migrate(
    means: Means, facts: LiveFacts, target: Datastore, limit_s: float, advance: Advance
) -> Machine:
    """Until no file of the VM lies in the backup; an earlier way that still goes on is waited for.

    Raises as `run_task`, and TaskFailed where something stayed behind.
    """
    machine = await_moving(means, facts, limit_s)
    names = names_of_export(means.vcenter, facts)
    if touches(machine, facts, names):
        _relocate(means, machine, target, limit_s, advance)
        machine = await_moving(means, facts, limit_s)
    if touches(machine, facts, names):
        raise TaskFailed(f"{machine.name} was moved, and still has files on {facts.datastore}")
    _let_go(means, machine)
    return machine


def await_moving(means: Means, facts: LiveFacts, limit_s: float) -> Machine:
    """The VM, once no task moves it. Raises ObjectGone, WaitTooLong, Stopped."""
    give_up_at = time.monotonic() + limit_s
    while True:
        machine = find_live(means.vcenter, facts)
        if machine is None:
            raise ObjectGone(
                f"vCenter has no VM of the session {facts.session} any more; "
                f"`backpoint live end {facts.session}` forgets it"
            )
        managed = means.vcenter.object("VirtualMachine", machine.moref)
        tasks = [str(name).lower() for name in unfinished_tasks(means.vcenter, managed)]
        if not any(part in name for part in _MOVING for name in tasks):
            return machine
        if time.monotonic() > give_up_at:
            raise WaitTooLong(f"{machine.name} is still on its way after {limit_s:g} s")
        means.stop.wait(LOOK_S)


def _relocate(
    means: Means, machine: Machine, target: Datastore, limit_s: float, advance: Advance
) -> None:
    managed = means.vcenter.object("VirtualMachine", machine.moref)
    # With a datastore and no list of disks, its home and all its disks go there.
    spec = vim.vm.RelocateSpec(datastore=means.vcenter.object("Datastore", target.moref))
    started: list[Any] = []
    percent = 0

    def start() -> Any:
        started.append(managed.RelocateVM_Task(spec))
        return started[0]

    def look() -> None:
        nonlocal percent
        info = means.vcenter.call("asking how far it has come", lambda: started[0].info)
        now = info.progress or 0
        advance(now - percent)
        percent = now

    run_task(
        means.vcenter,
        f"moving {machine.name} to {target.name}",
        start,
        limit_s=limit_s,
        stop=means.stop,
        on_wait=look,
    )
    advance(100 - percent)


def _let_go(means: Means, machine: Machine) -> None:
    """Nobody's any more; and no host shall give it a new uuid when its files move again."""
    managed = means.vcenter.object("VirtualMachine", machine.moref)
    gone = [vim.option.OptionValue(key=key, value="") for key in (MARK, "uuid.action")]
    run_task(
        means.vcenter,
        f"taking our mark off {machine.name}",
        lambda: managed.ReconfigVM_Task(spec=vim.vm.ConfigSpec(extraConfig=gone)),
        limit_s=means.waits.reconfigure_s,
        stop=means.stop,
    )
