"""What `backpoint agent inventory` tells of a VM: a row for people, a record for scripts.

Pure. Decides the words and the record's keys, which scripts rely on. Refuses to know where VMs or
jobs come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from backpoint_agent.fitness import disk_troubles, remarks, why_not
from backpoint_agent.machine import Machine, SnapshotNote, VirtualDisk
from backpoint_agent.selection import DiskPlan, Selected, plan_disks
from backpoint_agent.settings.model import Job
from backpoint_repo.sizes import format_size

COLUMNS: Final = (
    ("vm", False),
    ("id", False),
    ("power", False),
    ("disks", True),
    ("size", True),
    ("tracking", False),
    ("folder", False),
    ("datastores", False),
    ("tags", False),
    ("jobs", False),
    ("cannot be backed up because", False),
)
"""Headings; True where numbers stand."""
_VERDICTS: Final = {True: "would fail", False: "leaves it out"}
_POWER: Final = {"poweredOn": "on", "poweredOff": "off", "suspended": "suspended"}


@dataclass(frozen=True)
class JobView:
    """What one job makes of one VM. chosen: it would be backed up. reason: why it would not, and
    where `wanted`, that is a failure of the job. disks: None where it would not come to them."""

    job: str
    chosen: bool
    wanted: bool
    reason: str | None
    disks: DiskPlan | None


JobViews = dict[str, list[JobView]]
"""By moref."""


def view_jobs(selections: Iterable[tuple[Job, Selected]]) -> JobViews:
    """What all jobs make of the VMs that match them."""
    views: JobViews = {}
    for job, selected in selections:
        for machine in selected.chosen:
            plan = plan_disks(machine, job)
            view = JobView(job.name, plan.refusal is None, True, plan.refusal, plan)
            views.setdefault(machine.moref, []).append(view)
        for wanted, left_out in ((True, selected.hindered), (False, selected.skipped)):
            for left in left_out:
                view = JobView(job.name, False, wanted, left.reason, None)
                views.setdefault(left.machine.moref, []).append(view)
    return views


def row(machine: Machine, views: Iterable[JobView]) -> tuple[str, ...]:
    """One line of the table, in the order of `COLUMNS`."""
    return (
        machine.name,
        machine.moref,
        "template" if machine.template else _POWER[machine.power],
        str(len(machine.disks)),
        format_size(_size(machine.disks)),
        _tracking(machine),
        machine.folder,
        ", ".join(machine.datastores),
        "?" if machine.no_tags else ", ".join(machine.tags),
        ", ".join(_job_words(views)),
        "; ".join([*why_not(machine), *disk_troubles(machine)]),
    )


def record(vcenter: str, machine: Machine, views: Iterable[JobView]) -> dict[str, Any]:
    """Sizes in bytes, times in seconds since 1970. tags: null where they are not known."""
    return {
        "vcenter": vcenter,
        "vm": machine.name,
        "moref": machine.moref,
        "instance_uuid": machine.identity.instance,
        "vcenter_uuid": machine.identity.vcenter,
        "uuid": machine.uuid,
        "datacenter": machine.datacenter,
        "folder": machine.folder,
        "cluster": machine.cluster,
        "resource_pool": machine.pool,
        "host": machine.host,
        "datastores": list(machine.datastores),
        "tags": None if machine.no_tags else list(machine.tags),
        "attributes": machine.attributes,
        "power": machine.power,
        "template": machine.template,
        "hardware_version": machine.hardware_version,
        "guest": machine.guest_name,
        "tools_running": machine.tools_running,
        "change_tracking": machine.change_tracking,
        "size": _size(machine.disks),
        "disks": [_disk_record(disk) for disk in machine.disks],
        "snapshots": [_snapshot_record(note) for note in machine.snapshots],
        "cannot_because": why_not(machine),
        "remarks": remarks(machine),
        "jobs": {view.job: _view_record(view) for view in views},
    }


def summary(machines: Iterable[Machine], views: Mapping[str, list[JobView]]) -> Iterator[str]:
    """Lines below the table: what the jobs leave out or fail at, and what is worth a look."""
    for machine in machines:
        own = views.get(machine.moref, ())
        who = f"{machine.name} ({machine.moref})"
        for view in own:
            if view.reason is not None:
                yield f"{who}: {view.job} {_VERDICTS[view.wanted]}: {view.reason}"
            for item in view.disks.skipped if view.disks and view.chosen else ():
                yield f"{who}: {view.job} skips {item.disk.slot}: {item.reason}"
        if any(view.wanted for view in own):
            yield from (f"{who}: {remark}" for remark in remarks(machine))


def _size(disks: Iterable[VirtualDisk]) -> int:
    return sum(disk.size for disk in disks)


def _tracking(machine: Machine) -> str:
    if not machine.change_tracking_supported:
        return "none"
    return "on" if machine.change_tracking else "off"


def _job_words(views: Iterable[JobView]) -> Iterator[str]:
    """A job that would leave the VM out on purpose is none of its jobs."""
    for view in views:
        if view.wanted:
            yield view.job if view.chosen else f"{view.job} (fails)"


def _disk_record(disk: VirtualDisk) -> dict[str, Any]:
    return {
        "key": disk.key,
        "place": disk.slot,
        "label": disk.label,
        "file": disk.file,
        "size": disk.size,
        "mode": disk.mode,
        "unfit_because": disk.unfit,
    }


def _snapshot_record(note: SnapshotNote) -> dict[str, Any]:
    return {
        "moref": note.moref,
        "name": note.name,
        "created": note.created,
        "depth": note.depth,
    }


def _view_record(view: JobView) -> dict[str, Any]:
    plan = view.disks
    return {
        "chosen": view.chosen,
        "fails": view.wanted and not view.chosen,
        "because": view.reason,
        "disks": None if plan is None else [disk.key for disk in plan.chosen],
        "skipped_disks": None
        if plan is None
        else {item.disk.key: item.reason for item in plan.skipped},
    }
