"""The end of a run, told on the terminal: one line a VM, then what needs a look.

Decides what a person sees; the whole truth is the record, which --json prints.
"""

from __future__ import annotations

from typing import Final

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.running.outcome import MachineOutcome
from backpoint_repo.point_selector import format_time
from backpoint_repo.sizes import format_duration, format_size
from backpoint_repo.terminal import Column, print_line, print_record, print_table, warn

_COLUMNS: Final = (
    Column("vm"),
    Column("result"),
    Column("point"),
    Column("consistency"),
    Column("how"),
    Column("transport"),
    Column("disks", right=True),
    Column("read", right=True),
    Column("new", right=True),
    Column("stored", right=True),
    Column("time", right=True),
)


def print_summary(record: RunRecord, *, as_json: bool) -> None:
    """On stdout; warnings and alarms on stderr."""
    if as_json:
        print_record(record.record())
        return
    for outcome in record.outcomes:
        for text in outcome.warnings:
            warn(f"{outcome.vm}: {text}")
        for text in outcome.alarms:
            warn(f"{outcome.vm}: ALARM: {text}")
        if outcome.error:
            status = "" if outcome.error.startswith(outcome.status) else f"{outcome.status}: "
            warn(f"{outcome.vm}: {status}{outcome.error}")
    for text in record.warnings:
        warn(text)
    print_table(_COLUMNS, [_row(outcome) for outcome in record.outcomes])
    print_line(_last_line(record))


def _row(outcome: MachineOutcome) -> tuple[str, ...]:
    point = format_time(outcome.point_time) if outcome.point_time is not None else "-"
    result = outcome.status + (", alarm" if outcome.alarms else "")
    return (
        outcome.vm,
        result,
        point,
        outcome.consistency or "-",
        "/".join(dict.fromkeys(disk.how for disk in outcome.disks)) or "-",
        outcome.transport or "-",
        format_size(outcome.size),
        format_size(outcome.read),
        format_size(outcome.new),
        format_size(outcome.stored),
        format_duration(max(0.0, outcome.ended - outcome.started)),
    )


def _last_line(record: RunRecord) -> str:
    good = sum(outcome.good for outcome in record.outcomes)
    alarms = sum(len(outcome.alarms) for outcome in record.outcomes)
    read = sum(outcome.read for outcome in record.outcomes)
    stored = sum(outcome.stored for outcome in record.outcomes)
    trouble = f"{record.trouble}; " if record.trouble else ""
    took = format_duration(max(0.0, record.ended - record.started))
    removed = f", {len(record.removed)} old points removed" if record.removed else ""
    return (
        f"{record.job or 'run'}: {trouble}{good} of {len(record.outcomes)} VMs have a new point, "
        f"{len(record.skipped)} left out, {alarms} alarms; read {format_size(read)}, stored "
        f"{format_size(stored)}, in {took}{removed}"
    )
