"""`backpoint agent run`: the scheduler, until it is stopped."""

from __future__ import annotations

import argparse
import traceback
from typing import TYPE_CHECKING, Final

from backpoint_agent.commands.environment import CONFIGURATION_AND_KEY
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_agent.jobs.office import Office
    from backpoint_agent.jobs.run_record import RunRecord
    from backpoint_agent.settings.model import Settings

HELP: Final = "run the jobs by their schedules, until stopped"

_DESCRIPTION: Final = """
Start each job when its schedule says, within its window, until SIGTERM or SIGINT. What an earlier
agent on this machine left behind is undone at once, what runs since have left every hour. A run
that was missed while the agent was off is made up for once, if the window is open; nothing runs
twice for one due time, whatever the clock does. For systemd: Type=simple, KillSignal=SIGTERM,
TimeoutStopSec=infinity.
"""
_EXAMPLES: Final = """
backpoint agent run -c /etc/backpoint/backpoint.toml
"""
_EXIT_CODES: Final = """\
exit codes:
  0 stopped   2 wrong use or configuration   4 the repository failed   5 a key is wrong
"""

_CLEAR_UP_EVERY_S: Final = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=CONFIGURATION_AND_KEY,
        exit_codes=_EXIT_CODES,
    )


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError where no job has a schedule, KeyFault."""
    from backpoint_agent.commands.opening import open_office, read_settings
    from backpoint_agent.jobs.signals import run_stoppable
    from backpoint_repo.errors import UsageError

    settings = read_settings(args)
    if not any(job.schedule for job in settings.jobs.values()):
        raise UsageError("no job of the configuration has a schedule")
    with open_office(settings, as_json=args.json) as office:
        run_stoppable(office.stop, lambda: _until_stopped(office, as_json=args.json))
    return 0


async def _until_stopped(office: Office, *, as_json: bool) -> None:
    import trio

    from backpoint_agent.jobs.scheduler import Scheduler

    def report(record: RunRecord) -> None:
        try:
            _tell(office, record, as_json=as_json)
        except Exception:
            # Whatever becomes of a report, tonight's jobs are to be run.
            traceback.print_exc()

    scheduler = Scheduler(office, report)
    _say_what_is_next(office.settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_clear, office)
        await scheduler.run()
        nursery.cancel_scope.cancel()


def _say_what_is_next(settings: Settings) -> None:
    from backpoint_agent.local_zone import now
    from backpoint_agent.schedule import next_start
    from backpoint_repo.terminal import say

    starts = ((job.name, next_start(job, now())) for job in settings.jobs.values())
    shown = [f"{name} at {at.astimezone():%Y-%m-%d %H:%M}" for name, at in starts if at]
    say(f"started; next are {', '.join(shown)}")


def _tell(office: Office, record: RunRecord, *, as_json: bool) -> None:
    from backpoint_agent.report.run_report import report_run
    from backpoint_agent.report.summary import print_summary
    from backpoint_repo.terminal import warn

    report_run(office.settings, office.state, record)
    print_summary(record, as_json=as_json)
    if record.trouble:
        warn(f"{record.job}: {record.trouble}")


async def _keep_clear(office: Office) -> None:
    """At once and every hour: a snapshot that would not go at night must not grow until the next.

    Beside the jobs, which wait for the lock of a VM at most: merging its disks may take hours.
    """
    import trio

    while True:
        await trio.to_thread.run_sync(_clear_up, office)
        await trio.sleep(_CLEAR_UP_EVERY_S)


def _clear_up(office: Office) -> None:
    """What dead agents, and runs that are over, have left behind. Raises nothing."""
    from contextlib import closing

    from backpoint_agent.commands.opening import connect
    from backpoint_agent.effect import left_over
    from backpoint_agent.reaping.apply import Means
    from backpoint_agent.reaping.reap import reap_effects
    from backpoint_repo.errors import BackpointError
    from backpoint_repo.terminal import say, warn

    settings = office.settings
    for name in settings.vcenters:
        try:
            if not left_over(office.ledger.open_effects()):
                return
            office.stop.check()
            with closing(connect(settings, name, office.stop)) as vcenter:
                jobs, repository = settings.jobs, settings.repository
                means = Means(vcenter, office.ledger, settings.waits, jobs, office.stop, repository)
                for outcome in reap_effects(means, office.state.locks):
                    if outcome.result == "told":
                        continue  # a VM that runs from the backup, said every time
                    say(f"{outcome.step.vm_name}: {outcome.step.what}: {outcome.said}")
        except BackpointError as error:
            warn(f"{name}: what an earlier run left there could not be cleared up: {error}")
