"""The status as people and scripts are shown it. Decides nothing but words and order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from backpoint_agent.effect import Effect
from backpoint_agent.report.standing import Recovery, Standing
from backpoint_agent.report.status import JobStatus, Status
from backpoint_agent.report.work_under_way import Work
from backpoint_agent.settings.model import Window
from backpoint_repo.point_selector import format_time
from backpoint_repo.sizes import format_duration
from backpoint_repo.terminal import Column, print_line, print_record, print_table, say, warn

_JOBS: Final = ("job", "vcenter", "last run", "result", "next run", "window")
_VMS: Final = ("vm", "job", "last run", "newest point")
_FIGURES: Final = ("age", "longest gap", "RPO", "RTO")
_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR


def print_status(status: Status) -> None:
    """Tables on stdout; what is wrong on stderr, in words."""
    names = {machine.key: machine.outcome.vm for machine in status.machines}
    print_table(list(map(Column, _JOBS)), map(_job_row, status.jobs))
    if status.machines:
        print_line()
        figures = [Column(figure, right=True) for figure in _FIGURES]
        print_table([*map(Column, _VMS), *figures], map(_machine_row, status.machines))
        if by := {machine.recovery.by for machine in status.machines if machine.recovery}:
            print_line(f"RTO: a restore of all disks, estimated from {' or '.join(sorted(by))}")
    for work in status.work:
        print_line(f"under way: {names.get(work.key, 'a VM')}: {work.holder or 'by an agent'}")
    for effect in status.effects:
        print_line(f"to be reaped: {_effect_text(effect)}")
    for text in status.notes:
        say(text)
    for text in _wrong(status):
        warn(text)


def print_status_records(status: Status) -> None:
    """One JSON object a job, VM, piece of work and effect; the last says whether all is well."""
    names = {machine.key: machine.outcome.vm for machine in status.machines}
    for job in status.jobs:
        print_record(_job_record(job))
    for machine in status.machines:
        print_record(_machine_record(machine))
    for work in status.work:
        print_record(_work_record(work, names))
    for effect in status.effects:
        print_record(_effect_record(effect))
    print_record(
        {
            "type": "status",
            "at": status.now.timestamp(),
            "well": status.is_well,
            "troubles": list(status.troubles),
            "notes": list(status.notes),
        }
    )


def _job_row(job: JobStatus) -> tuple[str, ...]:
    run = job.history.newest
    if run is None:
        last, result = "-", "no run is recorded"
    else:
        good = len(run.outcomes) - len(run.failed)
        alarms = sum(len(outcome.alarms) for outcome in run.outcomes)
        last = format_time(run.ended)
        result = f"{good} of {len(run.outcomes)} VMs" + (f", {alarms} alarms" if alarms else "")
        result = f"FAILED, {result}" if job.failed else result
    due = job.next_start
    next_run = format_time(due.timestamp()) if due else "by hand"
    return job.history.job, job.vcenter, last, result, next_run, _window_text(job.window)


def _machine_row(machine: Standing) -> tuple[str, ...]:
    reached = machine.reached
    wanted = "-" if machine.wanted_s is None else _span(machine.wanted_s)
    return (
        machine.outcome.vm,
        machine.job,
        machine.outcome.status + ("!" if machine.outcome.alarms else ""),
        "-" if reached.newest is None else format_time(reached.newest),
        _span(reached.age_s),
        _span(reached.longest_gap_s),
        f"{wanted} MISSED" if machine.is_missed else wanted,
        _recovery_text(machine.recovery),
    )


def _wrong(status: Status) -> Iterator[str]:
    for job in status.jobs:
        run = job.history.newest
        if run is not None and run.trouble:
            yield f"{job.history.job}: {run.trouble}"
    for machine in status.machines:
        outcome = machine.outcome
        if machine.is_missed:
            yield f"{outcome.vm}: {_missed_text(machine)}"
        if not outcome.good:
            yield f"{outcome.vm}: {outcome.status}: {outcome.error}"
        for text in outcome.alarms:
            yield f"{outcome.vm}: ALARM: {text}"
        for text in machine.remarks:
            yield f"{outcome.vm}: {text}"
    if status.effects:
        left = f"left behind by runs that were cut off: {len(status.effects)}"
        yield f"{left}; `backpoint agent reap` undoes it"
    yield from status.troubles


def _missed_text(machine: Standing) -> str:
    wanted = _span(machine.wanted_s)
    if machine.reached.age_s is None:
        return f"RPO missed: it has no point, and one every {wanted} is wanted"
    return f"RPO missed: the newest point is {_span(machine.reached.age_s)} old, wanted is {wanted}"


def _effect_text(effect: Effect) -> str:
    return f"{effect.vm_name}: {effect.kind} of {format_time(effect.at)} ({effect.number})"


def _window_text(window: Window | None) -> str:
    if window is None:
        return "always"
    days = "" if len(window.days) == 7 else f" {','.join(window.days)}"
    return f"{window.start}-{window.end}{days}"


def _recovery_text(recovery: Recovery | None) -> str:
    return "-" if recovery is None else f"~{format_duration(recovery.seconds)}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 2 * _HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.1f} d"


def _job_record(job: JobStatus) -> dict[str, Any]:
    run = job.history.newest
    return {
        "type": "job",
        "job": job.history.job,
        "vcenter": job.vcenter,
        "last": run
        and {
            "number": run.number,
            "started": run.started,
            "ended": run.ended,
            "good": run.good,
            "vms": len(run.outcomes),
            "failed": len(run.failed),
            "trouble": run.trouble,
        },
        "not_started": job.history.not_started,
        "next": _stamp(job.next_start),
        "window": _window_text(job.window),
        "rpo_wanted_s": job.wanted_s,
    }


def _machine_record(machine: Standing) -> dict[str, Any]:
    outcome, reached, recovery = machine.outcome, machine.reached, machine.recovery
    return {
        "type": "vm",
        "vm": outcome.vm,
        "moref": outcome.moref,
        "identity": outcome.identity,
        "job": machine.job,
        "vcenter": machine.vcenter,
        "last": {
            "status": outcome.status,
            "started": outcome.started,
            "ended": outcome.ended,
            "error": outcome.error,
            "alarms": list(outcome.alarms),
            "warnings": list(outcome.warnings),
        },
        "point_time": reached.newest,
        "age_s": reached.age_s,
        "longest_gap_s": reached.longest_gap_s,
        "rpo_wanted_s": machine.wanted_s,
        "rpo_missed": machine.is_missed,
        "rto_estimated_s": recovery and round(recovery.seconds, 3),
        "rto_estimated_by": recovery and recovery.by,
        "remarks": list(machine.remarks),
    }


def _work_record(work: Work, names: dict[str, str]) -> dict[str, Any]:
    holder = work.holder
    return {
        "type": "under-way",
        "vm": names.get(work.key),
        "identity": work.key or None,
        "pid": holder and holder.pid,
        "purpose": holder and holder.purpose,
        "since": holder and holder.since,
    }


def _effect_record(effect: Effect) -> dict[str, Any]:
    return {
        "type": "effect",
        "number": effect.number,
        "kind": effect.kind,
        "vm": effect.vm_name,
        "moref": effect.vm,
        "vcenter": effect.vcenter,
        "at": effect.at,
    }


def _stamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
