"""Snapshots of a VM: made, found again, removed, consolidated.

Every function touches exactly the snapshot it is told, never its children. What is ours is told by
`snapshot_name.py`; that it must be removed is the ledger's affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backpoint_agent.errors import ObjectGone, TaskFailed
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.machine_reading import read_machine
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter

OnWait = Callable[[], None]


@dataclass(frozen=True)
class Snapshot:
    """moref: "snapshot-70". seconds: how long making it took, by vCenter's clock. manifest: the
    guest's writers took part (VSS), so applications were at rest, not only filesystems."""

    moref: str
    seconds: float
    manifest: bool


@dataclass(frozen=True)
class SnapshotOrder:
    """What to make. Memory is never taken: a point is disks."""

    name: str
    description: str
    quiesce: bool


def create_snapshot(
    vcenter: VCenter,
    vm: str,
    order: SnapshotOrder,
    *,
    limit_s: float,
    stop: Stop,
    on_wait: OnWait | None = None,
) -> Snapshot:
    """Raises QuiesceFailed, Busy, WaitTooLong and as `run_task`; after any of them the snapshot may
    exist all the same: `find_snapshot` tells."""
    machine = vcenter.object("VirtualMachine", vm)
    end = run_task(
        vcenter,
        f"making the snapshot {order.name}",
        lambda: machine.CreateSnapshot_Task(
            name=order.name, description=order.description, memory=False, quiesce=order.quiesce
        ),
        limit_s=limit_s,
        stop=stop,
        on_wait=on_wait,
    )
    moref = getattr(end.result, "_moId", None)
    if not isinstance(moref, str):
        raise TaskFailed(f"vCenter says that {order.name} was made, and does not say which it is")
    return Snapshot(moref, end.seconds, _has_manifest(vcenter, machine, moref))


def find_snapshot(vcenter: VCenter, vm: str, name: str) -> str | None:
    """The moref of the VM's snapshot of exactly this name. Raises as `VCenter.call`."""
    for note in read_machine(vcenter, vm).snapshots:
        if note.name == name:
            return note.moref
    return None


def remove_snapshot(
    vcenter: VCenter,
    snapshot: str,
    *,
    limit_s: float,
    stop: Stop | None = None,
    on_wait: OnWait | None = None,
) -> float:
    """Remove it and merge its data, leaving its children; seconds that took, 0.0 where it was gone.

    Raises as `run_task`.
    """
    snapshot_object = vcenter.object("VirtualMachineSnapshot", snapshot)
    try:
        end = run_task(
            vcenter,
            f"removing {snapshot}",
            lambda: snapshot_object.RemoveSnapshot_Task(removeChildren=False, consolidate=True),
            limit_s=limit_s,
            stop=stop,
            on_wait=on_wait,
        )
    except ObjectGone:
        return 0.0
    return end.seconds


def consolidate(
    vcenter: VCenter,
    vm: str,
    *,
    limit_s: float,
    stop: Stop | None = None,
    on_wait: OnWait | None = None,
) -> None:
    """Merge delta disks that no snapshot refers to. Raises as `run_task`."""
    machine = vcenter.object("VirtualMachine", vm)
    run_task(
        vcenter,
        f"consolidating the disks of {vm}",
        machine.ConsolidateVMDisks_Task,
        limit_s=limit_s,
        stop=stop,
        on_wait=on_wait,
    )


def _has_manifest(vcenter: VCenter, machine: Any, moref: str) -> bool:
    info = vcenter.call("looking at the snapshot", lambda: machine.snapshot)
    level: list[Any] = list(info.rootSnapshotList) if info else []
    while level:
        for node in level:
            if node.snapshot._moId == moref:
                return bool(node.backupManifest)
        level = [child for node in level for child in node.childSnapshotList]
    return False
