"""`backpoint agent status`: whether every VM has the points it should have, and what runs when."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_repo.command_parser import describe

HELP: Final = "show last and next runs, newest points against the wanted ones, and alarms"

_DESCRIPTION: Final = """
Show for every job its last and next run, and for every VM its newest point.
"""
_EXAMPLES: Final = """
backpoint agent status -c backpoint.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError."""
    from datetime import datetime

    from backpoint_agent.commands.opening import read_settings
    from backpoint_agent.local_zone import LocalZone
    from backpoint_agent.schedule import next_start
    from backpoint_repo.terminal import print_record

    settings = read_settings(args)
    now = datetime.now(LocalZone())
    for job in settings.jobs.values():
        due = next_start(job, now)
        print_record({"type": "job", "job": job.name, "next": due.timestamp() if due else None})
    return 0
