"""The folder of sessions as it lies on disk: whose it is, what in it is a session, what is not yet
one or not any more.

Hidden folders are sessions that are being made or removed; each is locked by who does that, so one
that is not locked was left by somebody who was killed. What is in them is not known here.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.bounded_file import read_bounded
from backpoint_fusefs.live.errors import SessionDamaged, SessionInUse
from backpoint_fusefs.live.session_lock import FolderLock
from backpoint_fusefs.live.session_names import HOME_FILE, RESERVED, checked_name
from backpoint_fusefs.live.session_record import read_record
from backpoint_repo.durable_file import fsync_folder, write_durably
from backpoint_repo.errors import BackpointError, UsageError
from backpoint_repo.private_folder import make_private_folder

_STARTING: Final = ".start-"
_ENDED: Final = ".ended-"
_LOCK_S: Final = 30.0
"""Whoever has the folder's own lock only makes or renames something."""
_SAME_ID: Final = 8
"""Hex digits of a session's id from which inode numbers are made: no two sessions share them."""
_FILE_MAX: Final = 1 << 16


class HomeFolder:
    """Thread-safe; several processes may have it."""

    def __init__(self, path: Path, repository_id: str) -> None:
        """Raises UsageError, OSError where it cannot be, or is not for this repository."""
        self.path = path
        make_private_folder(path)
        with self.locked():
            self._claim(repository_id)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody begins, publishes or takes up leftovers meanwhile. Raises SessionInUse."""
        try:
            lock = FolderLock(self.path, timeout_s=_LOCK_S)
        except SessionInUse:
            raise SessionInUse(f"another process is at work in {self.path}; try again") from None
        try:
            yield
        finally:
            lock.release()

    def names(self) -> set[str]:
        """All that are taken."""
        return set(os.listdir(self.path)) | RESERVED

    def refuse_taken(self, name: str) -> None:
        """Raises UsageError."""
        if name in self.names():
            raise UsageError(f"there is a session {name} already; choose another name")

    def sessions(self) -> list[Path]:
        """Folders that are sessions, or were; by name."""
        return sorted(
            Path(entry.path)
            for entry in os.scandir(self.path)
            if entry.is_dir(follow_symlinks=False) and _is_session_name(entry.name)
        )

    def new_id(self) -> str:
        """For the lock's owner."""
        taken = {found[:_SAME_ID] for found in map(_id_of, self.sessions())}
        taken |= {path.name.removeprefix(_STARTING)[:_SAME_ID] for path in self._hidden()}
        while (made := secrets.token_hex(8))[:_SAME_ID] in taken:
            pass
        return made

    def make_hidden(self, session_id: str) -> tuple[Path, FolderLock]:
        """A folder for a new session. For the lock's owner."""
        folder = self.path / f"{_STARTING}{session_id}"
        folder.mkdir(mode=0o700)
        return folder, FolderLock(folder)

    def hide(self, folder: Path) -> Path:
        """From now on, durably, it is no session any more."""
        hidden = self.path / f"{_ENDED}{secrets.token_hex(8)}"
        folder.rename(hidden)
        fsync_folder(self.path)
        return hidden

    def take_leftovers(self) -> list[tuple[Path, FolderLock]]:
        """Hidden folders that nobody works on, each now locked. Raises SessionInUse, OSError."""
        if not self._hidden():
            return []
        taken = []
        with self.locked():
            for folder in self._hidden():
                try:
                    taken.append((folder, FolderLock(folder, timeout_s=0)))
                except (SessionInUse, SessionDamaged, OSError):
                    continue
        return taken

    def _hidden(self) -> list[Path]:
        return [
            Path(entry.path)
            for entry in os.scandir(self.path)
            if entry.name.startswith((_STARTING, _ENDED)) and entry.is_dir(follow_symlinks=False)
        ]

    def _claim(self, repository_id: str) -> None:
        path = self.path / HOME_FILE
        if not os.path.lexists(path):
            if self.names() - RESERVED - _unfinished(self.path):
                raise UsageError(
                    f"{self.path} holds other things: name an empty folder for live sessions"
                )
            claim = {"version": 1, "repository": repository_id}
            write_durably(path, json.dumps(claim).encode())
            return
        try:
            claim = json.loads(read_bounded(path, _FILE_MAX))
            found = claim["repository"]
        except (ValueError, TypeError, KeyError, RecursionError, SessionDamaged):
            raise UsageError(f"{path} is not what this program wrote") from None
        if found != repository_id:
            raise UsageError(f"{self.path} holds live sessions of another repository")


def _unfinished(path: Path) -> set[str]:
    return {name for name in os.listdir(path) if name.startswith(".")}


def _is_session_name(name: str) -> bool:
    try:
        return bool(checked_name(name))
    except UsageError:
        return False


def _id_of(folder: Path) -> str:
    try:
        return read_record(folder).session_id
    except BackpointError:
        return ""
