"""`backpoint live`."""

from __future__ import annotations

import argparse
from typing import Final

HELP: Final = "sessions: writable views of a restore point, kept, committed or discarded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    del parser


def run(args: argparse.Namespace) -> int:
    """See --help."""
    del args
    return 2
