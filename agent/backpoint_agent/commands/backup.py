"""`backpoint agent backup`: one run of a job, or of one VM, now."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_agent.jobs.job_run import JobOrder
    from backpoint_agent.jobs.run_record import RunRecord
    from backpoint_agent.settings.model import Job, Settings

HELP: Final = "back up a job's VMs, or one VM, now"

_DESCRIPTION: Final = """
Back up the VMs of a job: a snapshot of each, what changed since its last point, a new point, and
the snapshot is removed. Job may be left out where there is only one. --vm takes one VM by name,
moref or instanceUuid, with the settings of the job that selects it.

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
  5 a key or passphrase is wrong   7 vCenter failed, or a VM has no point   130 interrupted
"""
NO_POINT: Final = 7
_INTERRUPTED: Final = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("job", metavar="JOB", nargs="?", help="a job of the configuration")
    what.add_argument("--vm", metavar="NAME", help="only this VM")
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
    record = _back_up(args, settings, order)
    if record.trouble:
        from backpoint_repo.terminal import warn

        warn(record.trouble)
    if any(outcome.status in ("stopped", "not-started") for outcome in record.outcomes):
        return _INTERRUPTED
    return NO_POINT if record.failed or record.trouble else 0


def _order(args: argparse.Namespace, settings: Settings) -> JobOrder:
    from backpoint_agent.jobs.job_run import JobOrder
    from backpoint_repo.errors import UsageError

    jobs = settings.jobs
    if args.vm is not None:
        return JobOrder(_job_of_machine(args, settings), only=args.vm, full=args.full)
    if args.job is None and len(jobs) == 1:
        return JobOrder(next(iter(jobs.values())), full=args.full)
    if args.job not in jobs:
        known = ", ".join(jobs) or "none"
        asked = "which job?" if args.job is None else f"there is no job {args.job!r}."
        raise UsageError(f"{asked} The configuration has: {known}")
    return JobOrder(jobs[args.job], full=args.full)


def _job_of_machine(args: argparse.Namespace, settings: Settings) -> Job:
    """The first job that selects the VM. Raises UsageError where there is no such VM or job."""
    from contextlib import closing

    from backpoint_agent.commands.opening import connect
    from backpoint_agent.selection import find_machine, select
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.inventory import read_inventory
    from backpoint_repo.errors import UsageError

    known = False
    for name, account in settings.vcenters.items():
        with closing(connect(settings, name, Stop())) as vcenter:
            machines = read_inventory(vcenter, account).machines
        try:
            machine = find_machine(machines, args.vm)
        except UsageError:
            if len(settings.vcenters) == 1:
                raise
            continue
        known = True
        for job in settings.jobs.values():
            if settings.vcenter_of(job).name == name and machine in select(machines, job).chosen:
                return job
    what = "no job selects it" if known else "no vCenter of the configuration has it"
    raise UsageError(f"{args.vm}: {what}")


def _back_up(args: argparse.Namespace, settings: Settings, order: JobOrder) -> RunRecord:
    import time

    import trio

    from backpoint_agent.commands.opening import open_repository
    from backpoint_agent.jobs.job_run import run_job
    from backpoint_agent.jobs.office import Office
    from backpoint_agent.jobs.signals import stop_on_signals
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.report.live import live_watcher
    from backpoint_agent.report.run_report import report_run
    from backpoint_agent.report.summary import print_summary
    from backpoint_agent.state_folder import make_state_folder
    from backpoint_agent.stopping import Stop
    from backpoint_repo.process_tuning import tune_for_chunks

    repository = open_repository(settings)
    tune_for_chunks()
    state = make_state_folder(settings.state)
    with Ledger(state.ledger) as ledger, live_watcher(as_json=args.json) as watcher:
        office = Office(settings, state, repository, ledger, watcher, Stop(), time.time)

        async def until_done() -> RunRecord:
            async with trio.open_nursery() as nursery:
                await nursery.start(stop_on_signals, office.stop)
                record = await run_job(office, order)
                nursery.cancel_scope.cancel()
            return record

        record = trio.run(until_done)
    report_run(settings, state, record)
    print_summary(record, as_json=args.json)
    return record


def _show_plan(args: argparse.Namespace, settings: Settings, order: JobOrder) -> int:
    from contextlib import closing

    from backpoint_agent.commands.opening import connect
    from backpoint_agent.report.plan_table import print_plan
    from backpoint_agent.selection import Selected, find_machine, select
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.inventory import read_inventory

    account = settings.vcenter_of(order.job)
    with closing(connect(settings, account.name, Stop())) as vcenter:
        machines = read_inventory(vcenter, account).machines
    if order.only is None:
        selected = select(machines, order.job)
    else:
        selected = Selected((find_machine(machines, order.only),), (), (), ())
    print_plan(order.job, selected, as_json=args.json)
    return NO_POINT if selected.hindered else 0
