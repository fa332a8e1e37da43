"""`backpoint prove`."""

from __future__ import annotations

import argparse
from typing import Final

HELP: Final = "try whether restore points can be used, and keep the result with them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    del parser


def run(args: argparse.Namespace) -> int:
    """See --help."""
    del args
    return 2
