"""`backpoint agent backup`: one run of a job, or of one VM, now."""

from __future__ import annotations

import argparse
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from backpoint_agent.commands.environment import CONFIGURATION_AND_KEY
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_agent.jobs.job_run import JobOrder
    from backpoint_agent.machine import Machine
    from backpoint_agent.settings.model import Settings

HELP: Final = "back up a job's VMs, or one VM, now"

_DESCRIPTION: Final = """
Back up the VMs of a job: a snapshot of each, what changed since its last point, a new point, and
the snapshot is removed. Job may be left out where there is only one. --vm takes one VM by name,
moref or instanceUuid, with the settings of the job that is named, else of the first that selects
it.

The job's window is not looked at: who starts it by hand means now. Interrupted, it removes its
snapshots before it ends; killed, the next run or `backpoint agent reap` does.
"""
_EXAMPLES: Final = """
backpoint agent backup -c backpoint.toml nightly
backpoint agent backup -c backpoint.toml --vm web01 --full
backpoint agent backup -c backpoint.toml nightly --dry-run --json
"""
_EXIT_CODES: Final = """\
exit codes:
  0 every VM has its point   2 wrong use or configuration   4 the repository failed
  5 a key or passphrase is wrong   7 vCenter failed, or a VM has no point
  130 interrupted   143 terminated
"""
NO_POINT: Final = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=CONFIGURATION_AND_KEY,
        exit_codes=_EXIT_CODES,
    )
    parser.add_argument("job", metavar="JOB", nargs="?", help="a job of the configuration")
    parser.add_argument("--vm", metavar="NAME", help="only this VM, whether selected or not")
    parser.add_argument(
        "--full", action="store_true", help="read everything, whatever change tracking says"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only show which VMs and disks; changes nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError, KeyFault, VSphereError and what a repository raises."""
    from backpoint_agent.commands.opening import read_settings

    settings = read_settings(args)
    order = _order(args, settings)
    if args.dry_run:
        return _show_plan(args, settings, order)
    return _back_up(args, settings, order)


def _order(args: argparse.Namespace, settings: Settings) -> JobOrder:
    from backpoint_agent.jobs.job_run import JobOrder
    from backpoint_repo.errors import UsageError

    jobs = settings.jobs
    if args.job is not None and args.job not in jobs:
        known = ", ".join(jobs) or "none"
        raise UsageError(f"there is no job {args.job!r}; the configuration has: {known}")
    if args.job is not None:
        return JobOrder(jobs[args.job], only=args.vm, full=args.full)
    if args.vm is not None:
        return replace(_order_of_machine(args.vm, settings), full=args.full)
    if len(jobs) != 1:
        known = ", ".join(jobs) or "none"
        raise UsageError(f"which job? The configuration has: {known}")
    return JobOrder(next(iter(jobs.values())), full=args.full)


def _order_of_machine(text: str, settings: Settings) -> JobOrder:
    """The VM, in the first job that selects it. Raises UsageError, VSphereError."""
    from backpoint_agent.jobs.job_run import JobOrder
    from backpoint_agent.selection import find_machine, select
    from backpoint_repo.errors import UsageError

    known = _machines(settings)
    found: dict[str, Machine] = {}
    for name, machines in known.items():
        with suppress(UsageError):
            found[name] = find_machine(machines, text)
    # Two accounts may be of one vCenter.
    if len({machine.identity for machine in found.values()}) > 1:
        homes = " and ".join(found)
        raise UsageError(f"{text!r} is in {homes}: name a job of the one that is meant")
    every = {machine.identity: machine for machines in known.values() for machine in machines}
    machine = find_machine(tuple(every.values()), text)
    for job in settings.jobs.values():
        machines = known.get(settings.vcenter_of(job).name, ())
        selected = select(machines, job)
        wanted = (*selected.chosen, *(left.machine for left in selected.hindered))
        if any(one.identity == machine.identity for one in wanted):
            return JobOrder(job, only=machine.moref)
    raise UsageError(f"no job selects {machine.name}; name one whose settings it shall be done by")


def _machines(settings: Settings) -> dict[str, tuple[Machine, ...]]:
    """Of each vCenter that answers; the VM may be in another. Raises VSphereError if none does."""
    from backpoint_agent.commands.opening import connect
    from backpoint_agent.errors import VSphereError
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.inventory import read_inventory
    from backpoint_repo.terminal import warn

    found: dict[str, tuple[Machine, ...]] = {}
    failures = []
    for name, account in settings.vcenters.items():
        try:
            with closing(connect(settings, name, Stop())) as vcenter:
                found[name] = read_inventory(vcenter, account).machines
        except VSphereError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    for failure in failures:
        warn(f"not looked for there: {failure}")
    return found


def _back_up(args: argparse.Namespace, settings: Settings, order: JobOrder) -> int:
    from backpoint_agent.commands.opening import open_office
    from backpoint_agent.jobs.job_run import run_job
    from backpoint_agent.jobs.signals import run_stoppable, stopped_code
    from backpoint_agent.report.run_report import report_run
    from backpoint_agent.report.summary import print_summary
    from backpoint_repo.terminal import warn

    with open_office(settings, as_json=args.json) as office:
        record = run_stoppable(office.stop, lambda: run_job(office, order))
    report_run(settings, office.state, record)
    print_summary(record, as_json=args.json)
    if record.trouble:
        warn(record.trouble)
    if not record.failed and not record.trouble:
        return 0
    return stopped_code(office.stop) or NO_POINT


def _show_plan(args: argparse.Namespace, settings: Settings, order: JobOrder) -> int:
    from backpoint_agent.commands.opening import connect
    from backpoint_agent.jobs.job_run import select_for
    from backpoint_agent.report.plan_table import print_plan
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.inventory import read_inventory

    account = settings.vcenter_of(order.job)
    with closing(connect(settings, account.name, Stop())) as vcenter:
        selected = select_for(order, read_inventory(vcenter, account).machines)
    return 0 if print_plan(order.job, selected, as_json=args.json) else NO_POINT
