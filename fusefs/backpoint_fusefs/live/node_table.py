"""The rows of a session's names in SQLite (`names.sqlite`): loaded whole, changed durably.

Decides how they lie on disk and what is no database of ours. What rows mean is for `live_node.py`
and `node_tree.py`; the lock that lets one thread in at a time is the caller's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.live_node import Row
from backpoint_repo.durable_file import fsync_folder

_APPLICATION: Final = 0x424B4E54
"""`BKNT`, where SQLite keeps whose file it is."""
_VERSION: Final = 1
_SIZE_MAX: Final = 512 << 20
_HEADER_SIZE: Final = 512
_ROWS_MAX: Final = 1 << 20
"""More than a tree takes, unlinked nodes included; what has more was not written here."""
_BUSY_S: Final = 1.0

_SCHEMA: Final = (
    "CREATE TABLE nodes (number INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, "
    "parent INTEGER NOT NULL, name BLOB NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, "
    "gid INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, disk INTEGER, "
    "target BLOB NOT NULL)"
)
_PUT: Final = f"REPLACE INTO nodes VALUES ({','.join('?' * 11)})"
_TABLES: Final = {("nodes", _SCHEMA), ("sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)")}
_ERRNOS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
}


class NodeTable:
    """One connection; not for two threads at once. OSError has the system's errno."""

    def __init__(self, path: Path, first: Row) -> None:
        """Opens, or makes a table with the row `first`. Raises SessionDamaged, OSError."""
        self._path = path
        new = _make_sure_of(path)
        with self._trouble():
            self._database = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._trouble():
                self._prepare()
                if new:
                    self._fill(first)
                self._check()
        except BaseException:
            self._database.close()
            raise

    def rows(self) -> list[tuple[Any, ...]]:
        """All of them, by number; their values are not checked. Raises SessionDamaged, OSError."""
        with self._trouble():
            found = self._database.execute(
                "SELECT * FROM nodes ORDER BY number LIMIT ?", (_ROWS_MAX,)
            )
            return found.fetchall()

    def highest(self) -> int:
        """The highest number that was ever used. Raises SessionDamaged, OSError."""
        with self._trouble():
            found = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'nodes'")
            row = found.fetchone()
        if row is None or type(row[0]) is not int:
            raise SessionDamaged(f"{self._path} does not say which numbers were used")
        return row[0]

    def write(self, rows: Iterable[Row], removed: Iterable[int] = ()) -> None:
        """Put or replace rows and remove others, all or nothing; durable when it returns.

        Raises OSError.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_PUT, rows)
            self._database.executemany(
                "DELETE FROM nodes WHERE number = ?", [(number,) for number in removed]
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            raise _os_error(error) from error

    def close(self) -> None:
        """Harmless when repeated."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    def _prepare(self) -> None:
        for setting in ("trusted_schema = OFF", "cell_size_check = ON"):
            self._database.execute(f"PRAGMA {setting}")
        # One process has it, so no memory is shared; full: a commit survives a power cut.
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._database.execute(f"PRAGMA {setting}")

    def _fill(self, first: Row) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._database.execute(f"PRAGMA user_version = {_VERSION}")
        self._database.execute(_SCHEMA)
        self._database.execute("COMMIT")
        self.write([first])
        fsync_folder(self._path.parent)

    def _check(self) -> None:
        application = self._database.execute("PRAGMA application_id").fetchone()[0]
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        tables = set(self._database.execute("SELECT name, sql FROM sqlite_master LIMIT 10"))
        if application != _APPLICATION or version != _VERSION or tables != _TABLES:
            raise SessionDamaged(f"{self._path} is not a database of this program's")

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            found = _os_error(error)
            if found.errno != errno.EIO or _code(error) == sqlite3.SQLITE_IOERR:
                raise found from error
            raise SessionDamaged(f"{self._path} is damaged: {error}") from error


def _make_sure_of(path: Path) -> bool:
    """Whether the file is new; a crash may have left it empty. Raises SessionDamaged, OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return True
    # SQLite takes what is smaller than its header for an empty database, and writes over it.
    if not stat.S_ISREG(found.st_mode) or not (
        found.st_size == 0 or _HEADER_SIZE <= found.st_size <= _SIZE_MAX
    ):
        raise SessionDamaged(f"{path} is no file of this program's: odd, or of an odd size")
    return found.st_size == 0 and not path.with_name(f"{path.name}-wal").exists()


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _os_error(error: sqlite3.Error) -> OSError:
    number = _ERRNOS.get(_code(error), errno.EIO)
    return OSError(number, f"{os.strerror(number)} (names of a session: {error})")
