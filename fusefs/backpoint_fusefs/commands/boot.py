"""`backpoint boot`."""

from __future__ import annotations

import argparse
from typing import Final

HELP: Final = "run a restore point as a virtual machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    del parser


def run(args: argparse.Namespace) -> int:
    """See --help."""
    del args
    return 2
