"""The command line: finds the named subcommand, runs it, and turns what it raises into an exit
code.

Only the module of the named subcommand is imported (entry-point group `backpoint.commands`); all of
them for the top-level help and for shell completion. A command module has `HELP: str`,
`add_arguments(parser)` and `run(args) -> int`, and imports what is heavy inside `run`. Knows no
command itself.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import FrameType, ModuleType
from typing import Final, NoReturn

from backpoint_repo.command_parser import CommandParser
from backpoint_repo.errors import BackpointError, RepositoryError, UsageError
from backpoint_repo.terminal import say

GROUP: Final = "backpoint.commands"
BUG: Final = 70
"""sysexits' EX_SOFTWARE. Python's own 1 would read as `check` finding damage."""
_BY_SIGNAL: Final = 128
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
"""Where our output goes to a file on a full disk; what a store says of itself is a StoreFull."""

_DESCRIPTION: Final = """\
Deduplicating, sealed backups of virtual machines; every restore point mounted as files.
`backpoint COMMAND --help` describes a command with examples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the process."""
    words = list(sys.argv[1:] if argv is None else argv)
    # A terminated command cleans up as an interrupted one does: leases, helper processes.
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()
    except BackpointError as error:
        if "-v" in words or "--verbose" in words:
            traceback.print_exc()
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return _BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter's own flush at exit must find nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BY_SIGNAL + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            return _bug()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        say(f"cannot write what there is to tell: {error.strerror}")
        return RepositoryError.exit_code
    except Exception:
        return _bug()
    return code


def _bug() -> int:
    """An exception of no class of ours is being handled."""
    # Not hidden behind -v: what happens once may not happen again when asked to.
    traceback.print_exc()
    say("this is a bug in backpoint; please report it with the lines above")
    return BUG


def find_commands() -> dict[str, EntryPoint]:
    """All installed subcommands by name, sorted."""
    return {found.name: found for found in sorted(entry_points(group=GROUP))}


def build_parser(commands: Mapping[str, ModuleType]) -> CommandParser:
    """The parser of the whole command line, knowing only these subcommands."""
    parser = CommandParser(prog="backpoint", description=_DESCRIPTION)
    parser.set_defaults(repo=None, settings=None, json=False, verbose=False)
    level = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in commands.items():
        command = level.add_parser(name, help=module.HELP)
        command.set_defaults(run=module.run)
        module.add_arguments(command)
    return parser


def _run(words: list[str]) -> int:
    found = find_commands()
    name = _named_command(words)
    if name is not None and name not in found:
        raise UsageError(f"there is no command {name!r}; there are: {', '.join(found)}")
    wanted = found if name is None else {name: found[name]}
    parser = build_parser({name: point.load() for name, point in wanted.items()})
    args = parser.parse_args(words)
    code = args.run(args)
    assert isinstance(code, int)
    return code


def _named_command(words: list[str]) -> str | None:
    """The first word that is neither a global option nor its value."""
    scan = CommandParser(prog="backpoint", usage="backpoint [options] COMMAND ...", add_help=False)
    scan.add_argument("command", nargs="?")
    scan.add_argument("rest", nargs=argparse.REMAINDER)
    command = scan.parse_known_args(words)[0].command
    return command if isinstance(command, str) else None


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(_BY_SIGNAL + number)
