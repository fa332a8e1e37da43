"""`backpoint agent`: gathers the agent's subcommands. Decides nothing else."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from backpoint_agent.commands.environment import CONFIGURATION
from backpoint_agent.errors import ConfigMistakes
from backpoint_repo.command_parser import CommandParser, describe
from backpoint_repo.errors import UsageError
from backpoint_repo.terminal import say

HELP: Final = "back up and restore the VMs of a vCenter"

_COMMANDS: Final = (
    "inventory",
    "backup",
    "run",
    "prune",
    "reap",
    "restore",
    "status",
    "config-check",
)


_DESCRIPTION: Final = """
Fill a repository from VMware vCenters, and make VMs of its points again, as a configuration file
says. `backpoint agent ACTION --help` describes an action with examples.
"""
_EXAMPLES: Final = """
backpoint agent config-check --print-example > backpoint.toml
backpoint agent inventory -c backpoint.toml
backpoint agent backup -c backpoint.toml nightly
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, environment=CONFIGURATION, exit_codes="")
    level = parser.add_subparsers(
        title="what to do", metavar="ACTION", required=True, parser_class=CommandParser
    )
    for name in _COMMANDS:
        module = _module(name)
        command = level.add_parser(name, help=module.HELP)
        command.add_argument(
            "-c", "--config", metavar="FILE", type=Path, help="the configuration (TOML)"
        )
        command.set_defaults(act=module.run)
        module.add_arguments(command)


def run(args: argparse.Namespace) -> int:
    """Raises what the subcommand raises, and UsageError for -r; mistakes of the configuration are
    told here, each on a line of its own."""
    if args.repo is not None:
        raise UsageError("the agent's repository is the one in its configuration; leave -r out")
    try:
        code = args.act(args)
    except ConfigMistakes as mistakes:
        for line in str(mistakes).splitlines():
            say(line)
        return mistakes.exit_code
    assert isinstance(code, int)
    return code


def _module(name: str) -> ModuleType:
    return import_module(f"backpoint_agent.commands.{name.replace('-', '_')}")
