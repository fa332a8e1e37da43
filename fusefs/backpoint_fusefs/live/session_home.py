"""The folder of sessions: which there are, how one begins and how it goes.

Decides names and places of sessions of one repository, and that a point is held in the repository
as long as a session stands on it (see `backpoint_repo.point_hold`). What is in a session is for
`session.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_record import SessionRecord
from backpoint_repo.catalog import PointSummary
from backpoint_repo.repository import Repository


@dataclass(frozen=True)
class SessionState:
    """A session from outside. problem: why it cannot be used, for the user. size: bytes on disk."""

    name: str
    folder: Path
    record: SessionRecord | None
    in_use: bool
    size: int
    problem: str = ""


def default_home(repository: Repository) -> Path:
    """BACKPOINT_LIVE, else /var/lib/backpoint/live/<repository id> for root, and the user's state
    folder for others."""
    raise NotImplementedError


class SessionHome:
    """Thread-safe; several processes may have one."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        """Makes the folder (0700). Raises UsageError where it cannot be, or holds sessions of
        another repository."""
        raise NotImplementedError

    def start(self, point: PointSummary, name: str | None, owner: str = "") -> SessionState:
        """Hold the point, copy its configuration files, name its disks: well under a second,
        however large. name None: `<vm>-<n>`. Whole or not there at all. Raises UsageError."""
        raise NotImplementedError

    def list(self) -> list[SessionState]:
        """Damaged ones too, with their problem."""
        raise NotImplementedError

    def open(self, name: str) -> Session:
        """For this process alone. Raises NoSuchSession, SessionInUse, SessionDamaged."""
        raise NotImplementedError

    def discard(self, name: str) -> int:
        """All of it goes, and the hold on the point. Returns bytes freed. Raises SessionInUse."""
        raise NotImplementedError
