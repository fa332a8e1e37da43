"""--memory: how much of it a mount may use for decoded disk content, as commands take it."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_repo.errors import UsageError

_MIN: Final = 16 << 20


def add_memory_size(parser: argparse.ArgumentParser) -> None:
    """The option; `parse_memory_size(args.memory)` reads it."""
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        default="256M",
        help="memory for decoded disk content (default: %(default)s)",
    )


def parse_memory_size(text: str) -> int:
    """Bytes. Raises UsageError."""
    from backpoint_repo.sizes import format_size, parse_size

    size = parse_size(text)
    if size < _MIN:
        raise UsageError(f"--memory must be at least {format_size(_MIN)}")
    return size
