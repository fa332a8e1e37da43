"""One process has a session: a lock on the file `lock` in its folder, gone with its process.

Decides who has what; what is done with it is for others. The file also says which process it was,
for messages only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.errors import SessionDamaged, SessionInUse

LOCK: Final = "lock"
PROBE_S: Final = 1.0
"""How long a lock is tried for: whoever only looks whether it is free has it for a moment."""
_POLL_S: Final = 0.01
_ODD: Final = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.EOPNOTSUPP)
"""No plain file is there; all else is the system's refusal."""
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderLock:
    """A folder's lock, held until `release`."""

    def __init__(self, folder: Path, *, timeout_s: float = PROBE_S) -> None:
        """Raises SessionInUse, SessionDamaged, OSError: FileNotFoundError where the folder is
        gone."""
        self._fd = _open(folder, os.O_CREAT)
        try:
            self._take(folder, timeout_s)
        except BaseException:
            self.release()
            raise
        with contextlib.suppress(OSError):  # a full disk must not keep anybody from a session
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _take(self, folder: Path, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not _try(self._fd, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                who = _holder(self._fd)
                raise SessionInUse(f"the session {folder.name} is in use by {who}")
            time.sleep(_POLL_S)
        # It may have been renamed or removed while this waited, to make an end of it.
        found, ours = os.stat(folder / LOCK, follow_symlinks=False), os.fstat(self._fd)
        if (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def is_locked(folder: Path) -> bool:
    """Whether a process has the folder's lock; false where there is none. Raises SessionDamaged,
    OSError."""
    try:
        fd = _open(folder, 0)
    except FileNotFoundError:
        return False
    try:
        return not _try(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _open(folder: Path, flags: int) -> int:
    try:
        return os.open(folder / LOCK, _FLAGS | flags, 0o600)
    except OSError as error:
        if error.errno not in _ODD:
            raise
        raise SessionDamaged(f"{folder / LOCK} cannot be opened: {error.strerror}") from error


def _try(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    pid = os.pread(fd, 32, 0).strip()
    return f"process {pid.decode()}" if pid.isdigit() else "another process"
