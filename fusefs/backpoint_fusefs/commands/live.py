"""`backpoint live`: gathers what can be done with sessions. Decides nothing else.

Other packages add words of their own by the entry-point group `backpoint.live`: modules like those
of `live_commands`, light to import.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Final

from backpoint_repo.command_parser import CommandParser, describe
from backpoint_repo.errors import UsageError

HELP: Final = "sessions: writable views of a restore point, kept, committed or discarded"
GROUP: Final = "backpoint.live"
_COMMANDS: Final = ("start", "list", "commit", "discard", "freeze")

_DESCRIPTION: Final = """
A session makes a restore point writable: its whole folder, as files that a hypervisor can run a
machine from. What is written is kept in a folder of its own and never touches the point. A session
outlives every mount, until it is discarded; or it becomes a new restore point (commit), for which
only what was written is stored. Several sessions of one point know nothing of each other.

`backpoint mount DIR` shows the sessions below DIR/live, `backpoint export` to hypervisors, both
with the same --live folder; `backpoint boot` runs a machine from one. `backpoint live ACTION
--help` describes an action with examples.
"""
_EXAMPLES: Final = """
backpoint live start web01@latest --name trial
backpoint live list
backpoint live commit trial --label 'after the repair'
backpoint live discard trial
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    level = parser.add_subparsers(
        title="what to do", metavar="ACTION", required=True, parser_class=CommandParser
    )
    for name, module in _commands():
        command = level.add_parser(name, help=module.HELP)
        command.set_defaults(act=module.run)
        module.add_arguments(command)


def run(args: argparse.Namespace) -> int:
    """Raises what the action raises."""
    code = args.act(args)
    assert isinstance(code, int)
    return code


def _commands() -> Iterator[tuple[str, Command]]:
    for name in _COMMANDS:
        yield name, import_module(f"backpoint_fusefs.commands.live_commands.{name}")
    for point in sorted(entry_points(group=GROUP)):
        if point.name not in _COMMANDS:
            yield point.name, _added(point)


def _added(point: EntryPoint) -> Command:
    try:
        module = point.load()
    except ImportError as error:
        return _Broken(f"`live {point.name}` cannot be loaded from {point.value}: {error}")
    assert isinstance(module, ModuleType)
    return module


class _Broken:
    """An action that cannot be imported: says so when it is used, and takes no other away."""

    HELP: Final = "cannot be loaded"

    def __init__(self, why: str) -> None:
        self._why = why

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Takes whatever is given."""
        parser.add_argument("anything", nargs="*", help=argparse.SUPPRESS)

    def run(self, args: argparse.Namespace) -> int:
        """Raises UsageError."""
        del args
        raise UsageError(self._why)


Command = ModuleType | _Broken
