"""`backpoint copy`: to be written."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_repo.command_parser import describe

HELP: Final = "copy restore points to another repository"

_DESCRIPTION: Final = "To be written."
_EXAMPLES: Final = "backpoint copy --to REPO2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Nothing yet."""
    return 2
