"""A repository with very many points, for measuring the start of a mount.

Decides how they are spread over VMs. It is not a benchmark of backing up: points are made with
the repository's own code, not by that many commands.
"""

from __future__ import annotations

from pathlib import Path

VMS = 1000


def make_many_points(repo: Path, count: int) -> None:
    """Add `count` points, spread over VMS machines, to an existing Backpoint repository.

    Raises NotImplementedError until the repository's writer is there to make them with.
    """
    raise NotImplementedError(f"no maker of {count} points for {repo.name} yet")
