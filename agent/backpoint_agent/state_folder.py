"""The state folder: what an agent on this machine remembers between its runs.

Decides which folders are in it and that nobody else can write there: whoever could would choose
what the reaper removes. Knows nothing of what is kept in them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import UsageError

PRIVATE: Final = 0o700
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


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
    """Make a folder that only we can enter, or check one that is there.

    One that others may read is taken as it is: somebody may have wanted that. Raises UsageError.
    """
    try:
        _make(path)
        found = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: cannot be made or looked at: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is in the way: the agent needs a folder there")
    if found.st_uid != os.geteuid():
        raise UsageError(
            f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()} who runs the agent"
        )
    if found.st_mode & _OTHERS_WRITE:
        raise UsageError(f"{path} can be written by others; say `chmod go-w {path}`")


def _make(path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=PRIVATE, exist_ok=True)
    fsync_folder(path.parent)
