"""`backpoint agent inventory`: which VMs there are, and what the jobs would make of them.

Changes nothing anywhere, and opens no repository.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_agent.commands.environment import CONFIGURATION
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backpoint_agent.selection import Selected
    from backpoint_agent.settings.model import Job, Settings, VCenterSettings
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.inventory import Inventory

HELP: Final = "list VMs, what cannot be backed up and why, and what each job would take"

_DESCRIPTION: Final = """
List the VMs of the configured vCenters, one line each: their disks, whether their changes are
tracked, which jobs would back them up, and what cannot be backed up and why. With --json one record
for each VM, a line each. Keys of a job that fit no VM are warned of. Changes nothing.
"""
_EXAMPLES: Final = """
backpoint agent inventory -c backpoint.toml
backpoint agent inventory -c backpoint.toml --job nightly
backpoint agent inventory -c backpoint.toml --vcenter main --json
"""
_EXIT_CODES: Final = """\
exit codes:
  0 done   2 wrong use, or mistakes in the configuration   5 a password cannot be read
  7 a vCenter failed   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=CONFIGURATION, exit_codes=_EXIT_CODES
    )
    parser.add_argument("--vcenter", metavar="NAME", help="only this vCenter")
    parser.add_argument("--job", metavar="NAME", help="only VMs that match this job")


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError, KeyFault; and, when all other vCenters are told, what the
    first vCenter that failed raised."""
    from backpoint_agent.commands.opening import read_settings
    from backpoint_agent.stopping import Stop
    from backpoint_repo.errors import BackpointError
    from backpoint_repo.terminal import warn

    settings = read_settings(args)
    failures: list[BackpointError] = []
    for vcenter in _vcenters(settings, args.vcenter, args.job):
        try:
            inventory = _read(settings, vcenter, Stop())
            _tell(args, settings, inventory)
        except BackpointError as error:
            failures.append(error)
    for failure in failures[1:]:
        warn(str(failure))
    if failures:
        raise failures[0]
    return 0


def _vcenters(settings: Settings, name: str | None, job: str | None) -> Sequence[VCenterSettings]:
    from backpoint_repo.errors import UsageError

    if job is not None and job not in settings.jobs:
        raise UsageError(f"there is no job {job!r}; there are: {', '.join(settings.jobs)}")
    if name is not None and name not in settings.vcenters:
        raise UsageError(f"there is no vCenter {name!r}; there are: {', '.join(settings.vcenters)}")
    known = [settings.vcenters[name]] if name else list(settings.vcenters.values())
    if job is None:
        return known
    own = settings.vcenter_of(settings.jobs[job])
    if own not in known:
        raise UsageError(f"the VMs of job {job!r} are of vCenter {own.name!r}, not of {name!r}")
    return [own]


def _read(settings: Settings, vcenter: VCenterSettings, stop: Stop) -> Inventory:
    from backpoint_agent.commands.opening import connect
    from backpoint_agent.vsphere.inventory import read_inventory

    connected = connect(settings, vcenter.name, stop)
    try:
        return read_inventory(connected, vcenter)
    finally:
        connected.close()


def _tell(args: argparse.Namespace, settings: Settings, inventory: Inventory) -> None:
    from backpoint_agent.inventory_report import COLUMNS, record, row, summary, view_jobs
    from backpoint_repo.terminal import Column, print_record, print_table, say, warn

    if inventory.no_tags:
        warn(f"tags are not known: {inventory.no_tags}")
    selections = list(_selections(settings, inventory, args.job))
    for _, selected in selections:
        for warning in selected.warnings:
            warn(warning)
    views = view_jobs(selections)
    machines = [
        machine
        for machine in sorted(inventory.machines, key=lambda each: each.name.casefold())
        if args.job is None or machine.moref in views
    ]
    if args.json:
        for machine in machines:
            print_record(record(inventory.vcenter, machine, views.get(machine.moref, [])))
        return
    columns = [Column(heading, right=right) for heading, right in COLUMNS]
    print_table(columns, (row(machine, views.get(machine.moref, [])) for machine in machines))
    for line in summary(machines, views):
        say(line)
    say(f"{inventory.vcenter}: {len(machines)} VMs")


def _selections(
    settings: Settings, inventory: Inventory, only: str | None
) -> Iterator[tuple[Job, Selected]]:
    from backpoint_agent.errors import VSphereError
    from backpoint_agent.selection import select
    from backpoint_repo.terminal import warn

    for name, job in settings.jobs.items():
        if only not in (None, name) or settings.vcenter_of(job).name != inventory.vcenter:
            continue
        try:
            yield job, select(inventory.machines, job)
        except VSphereError as error:
            if only is not None:
                raise
            warn(str(error))
