"""What a run would do, for --dry-run: each VM with its disks, and what is left out and why."""

from __future__ import annotations

from typing import Any

from backpoint_agent.fitness import remarks
from backpoint_agent.machine import Machine
from backpoint_agent.selection import DiskPlan, Selected, plan_disks
from backpoint_agent.settings.model import Job
from backpoint_repo.sizes import format_size
from backpoint_repo.terminal import Column, print_record, print_table, warn


def print_plan(job: Job, selected: Selected, *, as_json: bool) -> bool:
    """A table, or one record a VM. Whether every VM that the job wants can have its point."""
    for text in selected.warnings:
        warn(text)
    records = [_record(job, machine, plan_disks(machine, job)) for machine in selected.chosen]
    records += [
        {"vm": left.machine.name, "moref": left.machine.moref, "plan": plan, "why": left.reason}
        for plan, left_out in (("cannot", selected.hindered), ("leave out", selected.skipped))
        for left in left_out
    ]
    if as_json:
        for record in records:
            print_record({"type": "plan", "job": job.name, **record})
        return _all_can(records)
    columns = (Column("vm"), Column("plan"), Column("disks", right=True), Column("remarks"))
    print_table(columns, map(_row, records))
    return _all_can(records)


def _all_can(records: list[dict[str, Any]]) -> bool:
    return not any(record["plan"] in ("refuse", "cannot") for record in records)


def _record(job: Job, machine: Machine, plan: DiskPlan) -> dict[str, Any]:
    record: dict[str, Any] = {
        "vm": machine.name,
        "moref": machine.moref,
        "plan": "refuse" if plan.refusal else "back up",
        "why": plan.refusal or "",
        "disks": [
            {"slot": disk.slot, "label": disk.label, "size": disk.size} for disk in plan.chosen
        ],
        "left_out": [
            {"slot": item.disk.slot, "label": item.disk.label, "why": item.reason}
            for item in plan.skipped
        ],
        "remarks": remarks(machine),
    }
    return record


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    disks = record.get("disks", [])
    size = format_size(sum(disk["size"] for disk in disks))
    left_out = [f"without {item['slot']}: {item['why']}" for item in record.get("left_out", [])]
    said = [record["why"], *left_out, *record.get("remarks", [])]
    shown = f"{len(disks)}, {size}" if disks else "-"
    return record["vm"], record["plan"], shown, "; ".join(text for text in said if text)
