"""The state folder: what an agent on this machine remembers between its runs.

Decides which folders are in it and that nobody else can write there: whoever could would choose
what the reaper removes. Knows nothing of what is kept in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backpoint_repo import private_folder
from backpoint_repo.errors import UsageError


@dataclass(frozen=True)
class StateFolder:
    """ledger: outside effects; locks: one file a VM; runs: records of runs."""

    path: Path

    @property
    def ledger(self) -> Path:
        return self.path / "ledger"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    @property
    def runs(self) -> Path:
        return self.path / "runs"


def make_state_folder(path: Path) -> StateFolder:
    """The state folder with all its subfolders, made where they are missing.

    Raises UsageError where one cannot be made, is not ours, or others may write to it.
    """
    state = StateFolder(path)
    for folder in (path, state.ledger, state.locks, state.runs):
        make_private_folder(folder)
    return state


def make_private_folder(path: Path) -> None:
    """As `private_folder` has it; raises UsageError for what the system refuses, too."""
    try:
        private_folder.make_private_folder(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be made or looked at: {error.strerror}") from error
