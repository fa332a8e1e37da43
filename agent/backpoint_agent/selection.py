"""Which VMs a job takes, and which of a VM's disks.

Pure: decides from a sweep of the inventory and the job's own words, and gives a reason for whatever
is left out. Refuses to know how VMs are found, or what is done with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from backpoint_agent.errors import VSphereError
from backpoint_agent.fitness import why_not
from backpoint_agent.inventory_names import file_matches, matches, path_matches
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.settings.model import DiskExcludes, Job, Selection
from backpoint_repo.errors import UsageError

_LISTED: Final = 20
"""Candidates named in one message."""
_FROM_BACKUP: Final = (
    "it runs from the backup (`boot --vcenter` made it); `live migrate` makes it a VM like any "
    "other, and a job with its exact name in select.names takes it as it is"
)


@dataclass(frozen=True)
class LeftOut:
    """A VM that matches and is not backed up, and why."""

    machine: Machine
    reason: str


@dataclass(frozen=True)
class Selected:
    """What a job's selection comes to.

    chosen: by name. skipped: the job does not want them. hindered: the job wants them and they
    cannot be backed up; a run has to report each as failed. warnings: keys that match no VM, and
    VMs left out for a reason that the job does not say.
    """

    chosen: tuple[Machine, ...]
    skipped: tuple[LeftOut, ...]
    hindered: tuple[LeftOut, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SkippedDisk:
    """wanted: the job would have it, and no snapshot covers it; else the job leaves it out."""

    disk: VirtualDisk
    reason: str
    wanted: bool


@dataclass(frozen=True)
class DiskPlan:
    """The disks of one VM that a point is to hold. refusal: why there must be no point, or None."""

    chosen: tuple[VirtualDisk, ...]
    skipped: tuple[SkippedDisk, ...]
    refusal: str | None


def select(machines: Iterable[Machine], job: Job) -> Selected:
    """Raises VSphereError where the job goes by tags and vCenter did not tell them."""
    known = sorted(machines, key=_order)
    _require_tags(known, job)
    chosen, skipped, hindered = [], [], []
    unsaid: list[str] = []
    for machine in known:
        if not job.select.everything and _first_match(machine, job.select) is None:
            continue
        if reason := _unwanted(machine, job):
            skipped.append(LeftOut(machine, reason))
        elif machine.from_backup and not _is_named(machine, job.select):
            skipped.append(LeftOut(machine, _FROM_BACKUP))
            unsaid.append(f"{machine.name} ({machine.moref}) is left out: {_FROM_BACKUP}")
        elif reasons := why_not(machine):
            hindered.append(LeftOut(machine, "; ".join(reasons)))
        else:
            chosen.append(machine)
    warnings = [*_idle_keys(known, job), *unsaid]
    if not chosen and not hindered:
        warnings.append(f"jobs.{job.name}.select: there is no VM to back up")
    return Selected(tuple(chosen), tuple(skipped), tuple(hindered), tuple(warnings))


def find_machine(machines: Sequence[Machine], text: str) -> Machine:
    """The VM a user means by a name, a moref or an instanceUuid.

    Raises UsageError where it is none, or where several have the name.
    """
    for is_meant in _MEANINGS:
        found = [machine for machine in machines if is_meant(machine, text)]
        if len(found) == 1:
            return found[0]
        if found:
            lines = [
                f"{machine.moref} in {machine.folder or 'no folder'}, instanceUuid "
                f"{machine.identity.instance}"
                for machine in sorted(found, key=_order)[:_LISTED]
            ]
            raise UsageError(
                f"{len(found)} VMs are named {text!r}; say which by its moref or instanceUuid: "
                + "; ".join(lines)
            )
    near = get_close_matches(text, {machine.name for machine in machines}, n=3)
    hint = f"; there is {', '.join(map(repr, near))}" if near else ""
    raise UsageError(f"there is no VM with the name, moref or instanceUuid {text!r}{hint}")


def plan_disks(machine: Machine, job: Job) -> DiskPlan:
    """What of the VM's disks the job takes, skips or refuses; in the order of the disks."""
    chosen, skipped = [], []
    for disk in machine.disks:
        if pattern := _excluding(machine, disk, job.exclude_disks):
            skipped.append(SkippedDisk(disk, f"excluded by exclude_disks {pattern!r}", False))
        elif disk.unfit:
            skipped.append(SkippedDisk(disk, disk.unfit, True))
        else:
            chosen.append(disk)
    unfit = [
        f"{item.disk.slot} ({item.disk.label}): {item.reason}" for item in skipped if item.wanted
    ]
    refusal = None
    if unfit and job.unfit_disks == "refuse":
        refusal = (
            f"{machine.name} has disks that no snapshot covers: {'; '.join(unfit)}; exclude them "
            'with exclude_disks, or set unfit_disks = "skip"'
        )
    elif not chosen:
        refusal = f"no disk of {machine.name} is left to back up"
    return DiskPlan(tuple(chosen), tuple(skipped), refusal)


def _order(machine: Machine) -> tuple[str, int, str]:
    number = re.search(r"\d+$", machine.moref)
    return machine.name.casefold(), int(number[0]) if number else 0, machine.moref


_MEANINGS: Final[tuple[Callable[[Machine, str], bool], ...]] = (
    lambda machine, text: machine.moref == text,
    lambda machine, text: machine.identity.instance.lower() == text.lower() != "",
    lambda machine, text: machine.name == text,
    lambda machine, text: machine.name.casefold() == text.casefold(),
)


def _tag_matches(machine: Machine, pattern: str) -> bool:
    return any(
        matches(tag, pattern) or matches(tag.partition("/")[2], pattern) for tag in machine.tags
    )


def _attribute_matches(machine: Machine, pattern: str) -> bool:
    name, _, value = pattern.partition("=")
    return any(
        matches(known.strip(), name.strip()) and matches(held.strip(), value.strip())
        for known, held in machine.attributes.items()
    )


_CRITERIA: Final[dict[str, Callable[[Machine, str], bool]]] = {
    "names": lambda machine, pattern: matches(machine.name, pattern),
    "folders": lambda machine, pattern: path_matches(machine.folder, machine.datacenter, pattern),
    "tags": _tag_matches,
    "datastores": lambda machine, pattern: any(
        matches(name, pattern) for name in machine.datastores
    ),
    "clusters": lambda machine, pattern: path_matches(machine.cluster, machine.datacenter, pattern),
    "resource_pools": lambda machine, pattern: path_matches(
        machine.pool, machine.datacenter, pattern
    ),
    "attributes": _attribute_matches,
}


def _first_match(machine: Machine, selection: Selection) -> tuple[str, str] | None:
    for key, fits in _CRITERIA.items():
        for pattern in getattr(selection, key):
            if fits(machine, pattern):
                return key, pattern
    return None


def _is_named(machine: Machine, selection: Selection) -> bool:
    """By its own name, not by a pattern that would fit others too."""
    return machine.name.casefold() in map(str.casefold, selection.names)


def _unwanted(machine: Machine, job: Job) -> str | None:
    if job.exclude.everything:
        return "excluded by exclude.everything"
    if found := _first_match(machine, job.exclude):
        return f"excluded by exclude.{found[0]} {found[1]!r}"
    if machine.template and not job.templates:
        return "a template, and the job takes none"
    return None


def _require_tags(machines: Sequence[Machine], job: Job) -> None:
    if not job.select.tags and not job.exclude.tags:
        return
    for machine in machines:
        if machine.no_tags is not None:
            raise VSphereError(
                f"job {job.name} selects by tags, and they are not known: {machine.no_tags}"
            )


def _idle_keys(machines: Sequence[Machine], job: Job) -> Iterable[str]:
    """What was written and fits no VM at all: most often misspelt."""
    for table, selection in (("select", job.select), ("exclude", job.exclude)):
        for key, fits in _CRITERIA.items():
            for pattern in getattr(selection, key):
                if not any(fits(machine, pattern) for machine in machines):
                    yield f"jobs.{job.name}.{table}.{key}: no VM matches {pattern!r}"
    for number, excludes in enumerate(job.exclude_disks):
        if not any(matches(machine.name, excludes.vm) for machine in machines):
            yield f"jobs.{job.name}.exclude_disks[{number}].vm: no VM matches {excludes.vm!r}"


def _excluding(machine: Machine, disk: VirtualDisk, excludes: Sequence[DiskExcludes]) -> str | None:
    for exclude in excludes:
        if not matches(machine.name, exclude.vm):
            continue
        for pattern in exclude.disks:
            if (
                matches(disk.slot, pattern)
                or matches(disk.label, pattern)
                or (disk.file and file_matches(disk.file, pattern))
            ):
                return pattern
    return None
