"""`backpoint umount`: ends a mount, also one whose process died."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from backpoint_repo.command_parser import describe

HELP: Final = "end a mount, or clear one whose process died"

_DESCRIPTION: Final = """
Unmount and wait until the mount's process has ended. A mount whose process died ("Transport
endpoint is not connected") is cleared away.
"""
_EXAMPLES: Final = """
backpoint umount /mnt/backups
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("directory", metavar="DIR", type=Path, help="where it is mounted")
    parser.add_argument(
        "--lazy",
        action="store_true",
        help="also while files are open: whoever reads them gets errors",
    )


def run(args: argparse.Namespace) -> int:
    """Raises UsageError and RepositoryError."""
    from backpoint_fusefs.mount_point import real_place
    from backpoint_fusefs.unmounting import unmount

    unmount(real_place(args.directory), lazy=args.lazy)
    return 0
