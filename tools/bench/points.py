"""A repository with very many points, for measuring the start of a mount.

Decides how they are spread over VMs. It is not a benchmark of backing up: points are made with
the repository's own code, not by that many commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backpoint_repo.repository import Passphrase, open_repository
from backpoint_repo.store.local import LocalStore
from many_points import make_many_points

VMS: Final = 1000


def fill_with_points(repo: Path, passphrase: str, count: int) -> None:
    """Add `count` points, spread over VMS machines, to an existing Backpoint repository."""
    repository = open_repository(LocalStore(repo), Passphrase(passphrase))
    make_many_points(repository, VMS, count // VMS)
