"""`backpoint completion`: a script that teaches a shell the command line."""

from __future__ import annotations

import argparse
from typing import Any, Final

from backpoint_repo.command_parser import describe

HELP: Final = "print a completion script for a shell"
SHELLS: Final = ("bash", "zsh", "tcsh")
_FILES: Final = {"FILE", "DISK", "REPO"}
_FOLDERS: Final = {"DIR"}

_DESCRIPTION: Final = """
Print a script that completes commands, options and file names in this shell.
"""
_EXAMPLES: Final = """
backpoint completion bash > /etc/bash_completion.d/backpoint
backpoint completion zsh > /usr/local/share/zsh/site-functions/_backpoint
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, environment="", exit_codes="")
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    """Imports every command's module."""
    import shtab

    from backpoint_repo.cli import build_parser, find_commands

    parser = build_parser({name: found.load() for name, found in find_commands().items()})
    _mark_paths(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _mark_paths(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """What an argument's value is called says whether it is a path."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_paths(command, file, folder)
        elif action.metavar in _FILES:
            action.complete = file  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = folder  # type: ignore[attr-defined]
