"""What each of them opens: the repository, and the folder of its sessions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from backpoint_fusefs.live.session_home import SessionHome
    from backpoint_repo.repository import Repository

SESSION: Final = "name of a session (see `live list`)"
LIVE_ENVIRONMENT: Final = """\
  BACKPOINT_LIVE                folder of sessions, where --live is not given
"""


def add_live_option(parser: argparse.ArgumentParser) -> None:
    """`--live DIR`."""
    parser.add_argument(
        "--live",
        metavar="DIR",
        type=Path,
        help="folder of the repository's sessions; one DIR for mount, export, boot and live "
        "(default: /var/lib/backpoint/live/ID for root, else ~/.local/state/backpoint/live/ID)",
    )


def open_home(
    args: argparse.Namespace, doing: str, *, cached: bool = False
) -> tuple[Repository, SessionHome]:
    """doing: `starting a session`. cached: disks are read, through the cache of this machine.

    Raises UsageError, OwnerKeyNeeded, and what opening raises."""
    from backpoint_fusefs.live.session_home import SessionHome, default_home
    from backpoint_repo.opening import open_cached_from, open_from, require_owner

    repository = open_cached_from(args) if cached else open_from(args)
    require_owner(repository, doing)
    return repository, SessionHome(args.live or default_home(repository), repository)
