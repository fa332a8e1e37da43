"""What the metrics file says: names, units and labels of every figure, in Prometheus' text format.

VMs are named by strangers, and two may be named alike: decides how they are told apart, and that no
name can spoil the file. An unknown figure is left out; a VM without a point has the time 0, so that
a rule on its age fires. Pure; nothing in it is secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from backpoint_agent.report.history import JobHistory
from backpoint_agent.report.standing import Standing
from backpoint_agent.settings.model import Settings
from backpoint_repo.terminal import printable, warn
from backpoint_repo.version import VERSION

MACHINES_MAX: Final = 10_000
"""VMs in the file; each has up to twenty series."""

_LABEL_MAX: Final = 200
_VM: Final = ("vm", "job", "vcenter")
_JOB: Final = ("job", "vcenter")

_JOB_GAUGES: Final = {
    "job_last_run_timestamp_seconds": "When the last run of the job ended.",
    "job_last_run_duration_seconds": "How long the last run of the job took.",
    "job_last_run_success": "1 if every VM got its point and nothing needs a look, else 0.",
    "job_last_run_vms": "VMs of the last run of the job.",
    "job_last_run_failed_vms": "VMs of the last run of the job that got no point.",
}
_VM_GAUGES: Final = {
    "vm_last_point_timestamp_seconds": "What time the newest point is of; 0 if there is none.",
    "vm_last_run_timestamp_seconds": "When the last run of the VM ended.",
    "vm_last_run_success": "1 if the last run of the VM made a point, else 0.",
    "vm_last_run_duration_seconds": "How long the last run of the VM took.",
    "vm_last_run_tries": "How often the VM was tried in its last run.",
    "vm_last_run_read_bytes": "Read of the disks in the last run.",
    "vm_last_run_new_bytes": "Of that, what the repository did not have.",
    "vm_last_run_stored_bytes": "What the last run added to the repository.",
    "vm_disk_size_bytes": "Size of the disks in the last run's point.",
    "vm_last_run_alarms": "What the last run found that somebody has to look at.",
    "vm_last_run_warnings": "What makes the last run's point less than it could be.",
    "vm_rpo_wanted_seconds": "How old the newest point may become.",
    "vm_rpo_reached_seconds": "The longest time without a new point, of late and up to the last "
    "run of any job.",
}
_SNAPSHOT_GAUGES: Final = {
    "vm_snapshot_duration_seconds": "How long making or removing the snapshot took.",
    "vm_snapshot_stun_seconds": "How long the VM stood still meanwhile, as ESXi logged it.",
}


def metrics_text(
    settings: Settings,
    histories: Iterable[JobHistory],
    standings: Sequence[Standing],
    machines_max: int = MACHINES_MAX,
) -> bytes:
    """The file's content. machines_max: VMs beyond it are left out, and that is said."""
    registry = CollectorRegistry()
    version = Gauge("backpoint_agent_info", "The agent.", ("version",), registry=registry)
    version.labels(VERSION).set(1)
    jobs = _gauges(registry, _JOB_GAUGES, _JOB)
    for history in histories:
        vcenter = settings.vcenter_of(settings.jobs[history.job]).name
        for name, value in _job_figures(history).items():
            jobs[name].labels(history.job, vcenter).set(value)
    machines = _gauges(registry, _VM_GAUGES, _VM)
    snapshots = _gauges(registry, _SNAPSHOT_GAUGES, (*_VM, "operation"))
    if len(standings) > machines_max:
        warn(f"the metrics are of {machines_max} VMs; {len(standings) - machines_max} are left out")
    shown = standings[:machines_max]
    for label, standing in zip(_labels(shown), shown, strict=True):
        labels = (label, standing.job, standing.vcenter)
        for name, figure in _machine_figures(standing).items():
            if figure is not None:
                machines[name].labels(*labels).set(figure)
        for (name, operation), figure in _snapshot_figures(standing).items():
            if figure is not None:
                snapshots[name].labels(*labels, operation).set(figure)
    return generate_latest(registry)


def _gauges(
    registry: CollectorRegistry, described: dict[str, str], labels: Sequence[str]
) -> dict[str, Gauge]:
    return {
        name: Gauge(f"backpoint_{name}", text, labels, registry=registry)
        for name, text in described.items()
    }


def _job_figures(history: JobHistory) -> dict[str, float]:
    run = history.newest
    if run is None:
        return {}
    return {
        "job_last_run_timestamp_seconds": run.ended,
        "job_last_run_duration_seconds": max(0.0, run.ended - run.started),
        "job_last_run_success": run.good,
        "job_last_run_vms": len(run.outcomes),
        "job_last_run_failed_vms": len(run.failed),
    }


def _machine_figures(standing: Standing) -> dict[str, float | None]:
    run = standing.outcome
    return {
        "vm_last_point_timestamp_seconds": standing.reached.newest or 0.0,
        "vm_last_run_timestamp_seconds": run.ended,
        "vm_last_run_success": run.good,
        "vm_last_run_duration_seconds": max(0.0, run.ended - run.started),
        "vm_last_run_tries": run.tries,
        "vm_last_run_read_bytes": run.read,
        "vm_last_run_new_bytes": run.new,
        "vm_last_run_stored_bytes": run.stored,
        "vm_disk_size_bytes": run.size if run.good else None,
        "vm_last_run_alarms": len(run.alarms),
        "vm_last_run_warnings": len(run.warnings),
        "vm_rpo_wanted_seconds": standing.wanted_s,
        "vm_rpo_reached_seconds": standing.reached.worst_s,
    }


def _snapshot_figures(standing: Standing) -> dict[tuple[str, str], float | None]:
    run = standing.outcome
    return {
        ("vm_snapshot_duration_seconds", "create"): run.snapshot_create_s,
        ("vm_snapshot_duration_seconds", "remove"): run.snapshot_remove_s,
        ("vm_snapshot_stun_seconds", "create"): run.stun_create_s,
        ("vm_snapshot_stun_seconds", "remove"): run.stun_remove_s,
    }


def _labels(standings: Sequence[Standing]) -> list[str]:
    """Each VM's name; with its moref where two of a job have the same, since two series with the
    same labels make node exporters refuse the whole file."""
    names = [(each.job, printable(each.outcome.vm)[:_LABEL_MAX]) for each in standings]
    count = Counter(names)
    taken = {name for name, times in count.items() if times == 1}
    labels: list[str] = []
    for standing, (job, name) in zip(standings, names, strict=True):
        if count[job, name] > 1:
            name = f"{name} ({printable(standing.outcome.moref)[:_LABEL_MAX]})"
            while (job, name) in taken:
                name += "'"
            taken.add((job, name))
        labels.append(name)
    return labels
