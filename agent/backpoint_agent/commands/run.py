"""`backpoint agent run`: the scheduler, until it is stopped."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_agent.jobs.office import Office
    from backpoint_agent.jobs.run_record import RunRecord

HELP: Final = "run the jobs by their schedules, until stopped"

_DESCRIPTION: Final = """
Start each job when its schedule says, within its window, until SIGTERM or SIGINT. First it undoes
what an earlier agent on this machine left behind. A run that was missed while the agent was off is
made up for once, if the window is open; nothing runs twice for one due time, whatever the clock
does. For systemd: Type=simple, KillSignal=SIGTERM, TimeoutStopSec=infinity.
"""
_EXAMPLES: Final = """
backpoint agent run -c /etc/backpoint/backpoint.toml
"""
_EXIT_CODES: Final = """\
exit codes:
  0 stopped   2 wrong use or configuration   4 the repository failed   5 a key is wrong
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, exit_codes=_EXIT_CODES)


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError where no job has a schedule, KeyFault."""
    import time

    from backpoint_agent.commands.opening import open_repository, read_settings
    from backpoint_agent.jobs.office import Office
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.report.live import live_watcher
    from backpoint_agent.state_folder import make_state_folder
    from backpoint_agent.stopping import Stop
    from backpoint_repo.errors import UsageError
    from backpoint_repo.process_tuning import tune_for_chunks

    settings = read_settings(args)
    if not any(job.schedule for job in settings.jobs.values()):
        raise UsageError("no job of the configuration has a schedule")
    repository = open_repository(settings)
    tune_for_chunks()
    state = make_state_folder(settings.state)
    with Ledger(state.ledger) as ledger, live_watcher(as_json=args.json) as watcher:
        office = Office(settings, state, repository, ledger, watcher, Stop(), time.time)
        _until_stopped(office, as_json=args.json)
    return 0


def _until_stopped(office: Office, *, as_json: bool) -> None:
    import trio

    from backpoint_agent.jobs.scheduler import Scheduler
    from backpoint_agent.jobs.signals import stop_on_signals
    from backpoint_agent.report.run_report import report_run
    from backpoint_agent.report.summary import print_summary

    def report(record: RunRecord) -> None:
        report_run(office.settings, office.state, record)
        print_summary(record, as_json=as_json)

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signals, office.stop)
            await trio.to_thread.run_sync(_reap_first, office)
            await Scheduler(office, report).run()
            nursery.cancel_scope.cancel()

    trio.run(work)


def _reap_first(office: Office) -> None:
    """What a dead agent left is undone now, not only when its VM's turn comes."""
    from contextlib import closing

    from backpoint_agent.commands.opening import connect
    from backpoint_agent.errors import VSphereError
    from backpoint_agent.reaping.apply import Means
    from backpoint_agent.reaping.reap import reap_effects
    from backpoint_repo.terminal import say, warn

    if not office.ledger.open_effects():
        return
    settings = office.settings
    for name in settings.vcenters:
        try:
            with closing(connect(settings, name, office.stop)) as vcenter:
                means = Means(vcenter, office.ledger, settings.waits, settings.jobs, office.stop)
                for outcome in reap_effects(means, office.state.locks):
                    say(f"{outcome.step.vm_name}: {outcome.step.what}: {outcome.said}")
        except VSphereError as error:
            warn(f"{name}: what an earlier run left there could not be looked for: {error}")
