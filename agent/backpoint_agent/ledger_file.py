"""One file of the ledger: how its writer holds it, and how others read it.

Decides that a lock tells whether the writer lives (a process's number may be another's after a
while, and after a restart of the machine), that an entry is there only when it is on the disk, and
what of a file that a crash or a bad disk has hurt still counts. Knows no effect's meaning.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from backpoint_agent.effect import LINE_MAX, Entry, decode_entry, encode_entry
from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import UsageError

SUFFIX: Final = ".jsonl"


class LedgerFile:
    """The file that this process writes, and holds locked for as long as it is open."""

    def __init__(self, folder: Path, now: float) -> None:
        """Make a new one. Raises UsageError."""
        start = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        self._broken = ""
        self._size = 0
        try:
            while True:
                self.stem = f"{start}-{os.getpid()}-{secrets.token_hex(4)}"
                self.path = folder / (self.stem + SUFFIX)
                self._descriptor = _create_locked(self.path)
                # Before the lock was ours a sweep may have taken the empty file for a dead one.
                if os.fstat(self._descriptor).st_nlink:
                    break
                os.close(self._descriptor)
            fsync_folder(folder)
        except OSError as error:
            raise UsageError(f"{folder}: the ledger cannot be written: {error.strerror}") from error

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._size

    def append(self, entry: Entry) -> None:
        """Write one entry; it is on the disk when this returns. Raises UsageError.

        After a failure that leaves unknown what is on the disk nothing is written any more.
        """
        if self._broken:
            raise UsageError(f"{self.path}: the ledger cannot be written: {self._broken}")
        try:
            line = encode_entry(entry)
        except ValueError as error:
            raise UsageError(f"{self.path}: the ledger takes no such entry: {error}") from error
        try:
            self._write(line)
            os.fsync(self._descriptor)
        except OSError as error:
            self._take_back(error)
            reason = error.strerror
            raise UsageError(f"{self.path}: the ledger cannot be written: {reason}") from error
        self._size += len(line)

    def close(self) -> None:
        """Give the file up: from now on its writer is gone. Harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._broken = "it was closed"

    def _write(self, line: bytes) -> None:
        # A full disk takes a part first, and says what is wrong at the next write.
        while line:
            line = line[os.write(self._descriptor, line) :]

    def _take_back(self, error: OSError) -> None:
        try:
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        except OSError:
            self._broken = error.strerror or "an earlier write failed"


@dataclass
class FileContent:
    """What a file says. size: bytes when it was read; gone: nobody holds it any more."""

    path: Path
    gone: bool
    size: int = 0
    entries: list[Entry] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    @property
    def stem(self) -> str:
        return self.path.name.removesuffix(SUFFIX)


def read_file(path: Path) -> FileContent | None:
    """Read a file of any process; None where it has been deleted. Raises UsageError."""
    try:
        with _open_for_reading(path) as file:
            # Asked first: what is read of a file whose writer is gone is final.
            content = FileContent(path, gone=_try_lock(file, fcntl.LOCK_SH))
            _read_lines(file, content)
            return content
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: the ledger cannot be read: {error.strerror}") from error


def delete_file(content: FileContent) -> bool:
    """Delete a file that is still as it was read, and whose writer is gone; True where it was.

    Raises UsageError.
    """
    try:
        with _open_for_reading(content.path) as file:
            # The lock is kept over the unlinking: a writer that has just made this file and waits
            # for it will see that it has to make another.
            held = _try_lock(file, fcntl.LOCK_SH)
            if not held or os.fstat(file.fileno()).st_size != content.size:
                return False
            content.path.unlink()
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"{content.path}: cannot be deleted: {error.strerror}") from error


def _create_locked(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        # Waits for readers, who keep their lock only while they read.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _open_for_reading(path: Path) -> Iterator[BinaryIO]:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(f"{path} is in the way: no regular file")
        yield file


def _try_lock(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_lines(file: BinaryIO, content: FileContent) -> None:
    number = 0
    while line := file.readline(LINE_MAX):
        number += 1
        content.size += len(line)
        try:
            if not line.endswith(b"\n"):
                if not _skip_line(file, content):
                    # Whoever dies while writing leaves a part of a line, and only at the end: no
                    # entry, and no damage.
                    return
                raise ValueError("it is too long")
            content.entries.append(decode_entry(line))
        except ValueError as error:
            content.damage.append(f"{content.path}: line {number} is damaged: {error}")


def _skip_line(file: BinaryIO, content: FileContent) -> bool:
    """Read to the end of the line; False where the file ends first."""
    while part := file.readline(LINE_MAX):
        content.size += len(part)
        if part.endswith(b"\n"):
            return True
    return False
