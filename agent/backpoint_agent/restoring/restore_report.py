"""What a restore tells when it has ended, or would do: a JSON record, and lines for people.

Pure. Sizes in bytes, durations in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backpoint_agent.restoring.destination import Destination
from backpoint_agent.restoring.machine_plan import MachinePlan
from backpoint_agent.restoring.stored_machine import StoredMachine
from backpoint_agent.restoring.to_existing import RestoredOver
from backpoint_agent.restoring.to_new import Restored
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.sizes import format_duration, format_size


@dataclass(frozen=True)
class Report:
    """The same twice."""

    record: dict[str, Any]
    lines: tuple[str, ...]


def plan_report(
    stored: StoredMachine, vcenter: VCenter, plan: MachinePlan, destination: Destination
) -> Report:
    """Of a dry run to a new VM."""
    disks: list[dict[str, Any]] = [
        {
            "key": disk.key,
            "slot": disk.disk.place,
            "size": disk.size,
            "datastore": destination.datastores[disk.key],
        }
        for disk in plan.disks
    ]
    record = {
        "type": "restore-plan",
        "point": stored.name,
        "name": plan.name,
        "vcenter": vcenter.name,
        "folder": destination.folder.path,
        "pool": destination.pool.path,
        "host": destination.host.name,
        "disks": disks,
        "notes": list(plan.notes),
    }
    place, host = destination.folder.path, destination.host.name
    lines = [f"{plan.name} would be made in {place}, on {host}:"]
    lines += [f"  {d['slot']}  {format_size(d['size'])}  on {d['datastore']}" for d in disks]
    return Report(record, tuple(lines))


def new_report(
    stored: StoredMachine, vcenter: VCenter, plan: MachinePlan, restored: Restored, seconds: float
) -> Report:
    """Of a new VM."""
    machine = restored.machine
    record = {
        "type": "restored-machine",
        "point": stored.name,
        "name": machine.name,
        "moref": machine.moref,
        "instance": machine.identity.instance,
        "vcenter": vcenter.name,
        "transport": restored.way,
        "disks": [
            {"slot": disk.slot, "size": disk.size, "file": disk.file} for disk in machine.disks
        ],
        "notes": list(plan.notes),
        "verified": restored.verified,
        "duration_s": round(seconds, 3),
    }
    size = format_size(sum(disk.size for disk in machine.disks))
    verified = ", verified" if restored.verified else ""
    line = (
        f"{stored.name} is the new VM {machine.name} ({machine.moref}): "
        f"{size} by {restored.way}{verified}, in {format_duration(seconds)}"
    )
    return Report(record, (line,))


def over_report(
    stored: StoredMachine,
    vcenter: VCenter,
    restored: RestoredOver,
    seconds: float,
    *,
    dry_run: bool,
) -> Report:
    """Of an existing VM."""
    name = restored.machine.name
    record = {
        "type": "restored-over",
        "dry_run": dry_run,
        "point": stored.name,
        "name": name,
        "moref": restored.machine.moref,
        "vcenter": vcenter.name,
        "transport": restored.way,
        "disks": [
            {
                "key": disk.matched.key,
                "slot": disk.matched.disk.slot,
                "size": disk.matched.disk.size,
                "differing": disk.differing,
                "written": disk.written,
            }
            for disk in restored.disks
        ],
        "duration_s": round(seconds, 3),
    }
    lines = [
        f"{disk.matched.disk.slot}  {format_size(disk.matched.disk.size)}, "
        f"{format_size(disk.differing)} differ"
        for disk in restored.disks
    ]
    if not dry_run:
        written = format_size(sum(disk.written for disk in restored.disks))
        lines.append(
            f"{name} is as {stored.name}: {written} written by {restored.way}, in "
            f"{format_duration(seconds)}; its next backup reads everything"
        )
    return Report(record, tuple(lines))
