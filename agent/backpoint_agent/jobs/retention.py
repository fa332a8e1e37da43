"""By which rules a VM's points are kept: those of every job that takes the VM.

A job without rules keeps all, so what it takes is pruned by no other. Only jobs of one vCenter are
looked at together: no other has the same VM. How rules count is the repository's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from backpoint_agent.machine import Identity, Machine
from backpoint_agent.selection import select
from backpoint_agent.settings.model import Job, Settings, VCenterSettings
from backpoint_repo.point_selector import format_time
from backpoint_repo.repository import Repository
from backpoint_repo.retention.prune import apply_prune, plan_prune
from backpoint_repo.retention.rules import Rules


def rules_of_machines(
    settings: Settings, account: VCenterSettings, machines: Sequence[Machine]
) -> dict[Identity, list[Rules]]:
    """Of each VM that jobs take, all of them with rules. machines: all that the vCenter has.

    Raises VSphereError where a job selects by tags that are not known: it may take any VM.
    """
    takers: dict[Identity, list[Job]] = {}
    for job in settings.jobs.values():
        if settings.vcenter_of(job).name == account.name:
            for machine in taken_by(job, machines):
                takers.setdefault(machine.identity, []).append(job)
    return {
        identity: [job.retention.rules for job in jobs if job.retention is not None]
        for identity, jobs in takers.items()
        if all(job.retention is not None for job in jobs)
    }


def taken_by(job: Job, machines: Iterable[Machine]) -> list[Machine]:
    """Those too that cannot be backed up now. Raises VSphereError as above."""
    selected = select(machines, job)
    return [*selected.chosen, *(left.machine for left in selected.hindered)]


def rules_by_name(
    rules: dict[Identity, list[Rules]],
    machines: Iterable[Machine],
    name_of: Callable[[Machine], str | None],
) -> dict[str, list[Rules]]:
    """Of these VMs, by the name under which their points stand; None: there are none of it."""
    ruled = [(name_of(one), rules[one.identity]) for one in machines if one.identity in rules]
    return {name: own for name, own in ruled if name is not None}


def remove_old_points(
    repository: Repository, rules: dict[str, list[Rules]]
) -> tuple[tuple[str, str], ...]:
    """rules: by name in the repository. What was removed: that name, and the time of the point.

    Raises StoreReadOnly without the right to delete, and what planning and a store raise.
    """
    plan = plan_prune(repository, rules)
    removed = set(apply_prune(repository, plan).removed)
    return tuple(
        (point.vm, format_time(point.time)) for point in plan.doomed if point.point_id in removed
    )
