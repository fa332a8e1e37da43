"""`backpoint agent status`: whether every VM has the points it should have, and what runs when."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_agent.commands.environment import CONFIGURATION_AND_KEY
from backpoint_repo.command_parser import describe

HELP: Final = "show last and next runs, newest points against the wanted ones, and alarms"

_DESCRIPTION: Final = """
Show each job's last and next run, and how each of its VMs stands: the age of its newest point, the
longest gap between two of its last 30 points, the RPO that is wanted, and how long a restore of all
its disks may take (RTO), estimated by the restores made here or else by its last full backup. Also
what runs now, and what runs that were cut off have left. No vCenter is asked.

Points are looked up in the repository; where it cannot be opened, they are those of the records of
runs. The RPO is `rpo_hours` of the job; without it, the longest pause of its schedule and as much
again, at most six hours. Times that cannot be right, because a clock jumped, are not counted.
"""
_EXAMPLES: Final = """
backpoint agent status -c backpoint.toml
backpoint agent status -c backpoint.toml --json
"""
_EXIT_CODES: Final = """\
exit codes:
  0 all is well   2 wrong use or configuration
  7 somebody has to look: an RPO is missed, a job's last run failed, there are alarms, effects to be
    reaped, or the repository or a record cannot be read
"""
_LOOK: Final = 7


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
    """Raises ConfigMistakes, and UsageError where the state folder cannot be used."""
    from backpoint_agent.commands.opening import open_repository, read_settings
    from backpoint_agent.local_zone import now
    from backpoint_agent.report.status import read_status
    from backpoint_agent.report.status_table import print_status, print_status_records
    from backpoint_agent.state_folder import make_state_folder

    settings = read_settings(args)
    status = read_status(settings, make_state_folder(settings.state), open_repository, now())
    if args.json:
        print_status_records(status)
    else:
        print_status(status)
    return 0 if status.is_well else _LOOK
