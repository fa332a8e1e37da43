"""The folder of sessions: which there are, how one begins and how it goes.

Decides names and places of sessions of one repository, and that a point is held in the repository
as long as a session stands on it (see `backpoint_repo.point_hold`). What is in a session is for
`session.py`.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.errors import NoSuchSession, SessionDamaged
from backpoint_fusefs.live.home_folder import HomeFolder
from backpoint_fusefs.live.live_file import BaseContent
from backpoint_fusefs.live.node_tree import NAMES
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_end import ID, end_folder, size_of
from backpoint_fusefs.live.session_lock import FolderLock, is_locked
from backpoint_fusefs.live.session_names import checked_name, default_name
from backpoint_fusefs.live.session_record import RECORD, SessionRecord, own_record, write_record
from backpoint_fusefs.live.session_start import fill_session
from backpoint_fusefs.live.system_refusal import told
from backpoint_repo.catalog import PointSummary
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.durable_file import fsync_folder, write_durably
from backpoint_repo.errors import BackpointError, ObjectDamaged, UsageError
from backpoint_repo.opening import require_owner
from backpoint_repo.point_hold import Hold, put_hold
from backpoint_repo.repository import Repository

_CACHE_BYTES: Final = 64 << 20


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
    if chosen := os.environ.get("BACKPOINT_LIVE"):
        return Path(chosen)
    if os.geteuid() == 0:
        state = Path("/var/lib")
    else:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return state / "backpoint" / "live" / repository.config.repository_id.hex()


class SessionHome:
    """Thread-safe; several processes may have one."""

    def __init__(
        self, folder: Path, repository: Repository, cache: ChunkCache | None = None
    ) -> None:
        """Makes the folder (0700). cache: of chunks that sessions read from the repository.

        Raises UsageError where the folder cannot be, is not ours alone, or holds sessions of
        another repository; SessionStorageFailed.
        """
        self.folder = folder.absolute()
        self._repository = repository
        self._id = repository.config.repository_id.hex()
        self._cache = cache or ChunkCache(_CACHE_BYTES)
        with told(f"{folder} cannot be a folder of live sessions"):
            self._home = HomeFolder(self.folder, self._id)

    def start(self, point: PointSummary, name: str | None, owner: str = "") -> SessionState:
        """Hold the point, copy its configuration files, name its disks: well under a second,
        however large. name None: `<vm>-<n>`. Whole or not there at all.

        Raises UsageError, SessionStorageFailed, OwnerKeyNeeded, and what a repository raises.
        """
        require_owner(self._repository, "starting a live session")
        if name is not None:
            checked_name(name)
        self._clear_up()
        with told(f"no session can be made in {self.folder}"):
            folder, lock, record = self._begin(point, name, owner)
            try:
                self._hold(record)
                fill_session(folder, self._repository, self._repository.point(point.point_id))
                record = self._publish(folder, record, name)
            except BaseException:
                # What this cannot do now, the next start or list does.
                with suppress(BackpointError, OSError):
                    end_folder(folder, self._repository.sealed)
                raise
            finally:
                lock.release()
        # Somebody may have taken it away again by now.
        return replace(self._state(self.folder / record.name), record=record)

    def list(self) -> list[SessionState]:
        """Damaged ones too, with their problem. By name. Raises UsageError, SessionStorageFailed
        where the folder cannot be read."""
        self._clear_up()
        with told(f"the sessions in {self.folder} cannot be listed"):
            return [self._state(folder) for folder in self._home.sessions()]

    def open(self, name: str) -> Session:
        """For this process alone. Raises NoSuchSession, SessionInUse, SessionDamaged, UsageError,
        SessionStorageFailed."""
        with told(f"the session {name} cannot be opened"):
            session = Session(self._place(name), self._open_base)
        if session.record.repository_id != self._id:
            session.close()
            raise SessionDamaged(f"the session {name} is of another repository")
        return session

    def discard(self, name: str) -> int:
        """All of it goes, and the hold on the point. Returns bytes freed.

        Raises NoSuchSession, SessionInUse, UsageError, SessionStorageFailed, and what a store
        raises where the hold cannot be dropped: the session is gone then, and the next start or
        list tries again.
        """
        folder = self._place(name)
        with told(f"{folder} cannot be removed"):
            try:
                lock = FolderLock(folder)
            except FileNotFoundError:
                raise NoSuchSession(f"there is no session {name} in {self.folder}") from None
            try:
                size = size_of(folder)
                end_folder(self._home.hide(folder), self._repository.sealed)
            finally:
                lock.release()
        return size

    def _begin(
        self, point: PointSummary, name: str | None, owner: str
    ) -> tuple[Path, FolderLock, SessionRecord]:
        """A folder that is no session yet; it can tell whose a hold is before there is one."""
        with self._home.locked():
            if name is not None:
                self._home.refuse_taken(name)
            record = SessionRecord(
                self._home.new_id(),
                name or default_name(point.vm, self._home.names()),
                self._id,
                point.vm,
                point.point_id.hex(),
                point.point_id.hex(),
                self._repository.clock(),
                owner=owner,
            )
            folder, lock = self._home.make_hidden(record.session_id)
        try:
            write_durably(folder / ID, record.session_id.encode())
            write_record(folder, record)
            fsync_folder(self.folder)
        except BaseException:
            lock.release()
            raise
        return folder, lock, record

    def _hold(self, record: SessionRecord) -> None:
        why = f"live session {record.name} on {socket.gethostname()}"
        point_id = bytes.fromhex(record.point_id)
        hold = Hold(point_id, record.session_id, why, self._repository.clock())
        put_hold(self._repository.sealed, hold)

    def _publish(self, folder: Path, record: SessionRecord, name: str | None) -> SessionRecord:
        with self._home.locked():
            name = name or default_name(record.vm, self._home.names())
            self._home.refuse_taken(name)
            if name != record.name:
                record = replace(record, name=name)
                write_record(folder, record)
            folder.rename(self.folder / name)
            fsync_folder(self.folder)
        return record

    def _place(self, name: str) -> Path:
        """Raises NoSuchSession, also where no session can be called that, and where what is called
        so never was one: a discard deletes all of it."""
        none = NoSuchSession(f"there is no session {name!r} in {self.folder}")
        try:
            folder = self.folder / checked_name(name)
        except UsageError:
            raise none from None
        if folder.is_symlink() or not any((folder / own).exists() for own in (RECORD, ID)):
            raise none
        return folder

    def _state(self, folder: Path) -> SessionState:
        record, in_use, problem = None, False, ""
        try:
            in_use = is_locked(folder)
            record = own_record(folder)
            if record.repository_id != self._id:
                problem = "it is of another repository"
            elif not (folder / NAMES).is_file():
                problem = f"{folder / NAMES} is missing"
        except BackpointError as error:
            problem = str(error)
        except OSError as error:
            problem = f"it cannot be read: {error.strerror}"
        return SessionState(folder.name, folder, record, in_use, size_of(folder), problem)

    def _open_base(self, point_id: str, number: int) -> BaseContent:
        disks = self._repository.point(bytes.fromhex(point_id)).disks
        if number >= len(disks):
            raise ObjectDamaged(f"points/{point_id} has no disk {number}, and a session needs it")
        return self._repository.open_disk(disks[number], self._cache)

    def _clear_up(self) -> None:
        """What starts and discards left that were killed. What does not work now is left again."""
        left: list[tuple[Path, FolderLock]] = []
        with suppress(BackpointError, OSError):
            left = self._home.take_leftovers()
        for folder, lock in left:
            with suppress(BackpointError, OSError):
                end_folder(folder, self._repository.sealed)
            lock.release()
