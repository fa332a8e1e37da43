"""The socket of a session's control: where it is, who is at its other end.

Decides that names of any length work and that only the same user or root is heard. Knows no words.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_BACKLOG: Final = 16
_CREDENTIALS: Final = struct.Struct("=iII")
"""pid, uid, gid: `struct ucred`."""


def listen_at(path: Path) -> socket.socket:
    """Takes the place of whatever was there: a dead process's. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    fresh = f"{path.name}.{os.getpid()}"
    try:
        with _short_name(path.parent) as folder:
            (folder / fresh).unlink(missing_ok=True)
            made.bind(str(folder / fresh))
            (folder / fresh).chmod(0o600)
            made.listen(_BACKLOG)
            # Not before it listens: nobody may find it refusing.
            (folder / fresh).rename(folder / path.name)
    except BaseException:
        made.close()
        raise
    return made


def connect_to(path: Path, timeout_s: float) -> socket.socket:
    """Raises OSError: ECONNREFUSED and ENOENT where nobody listens."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(timeout_s)
    try:
        with _short_name(path.parent) as folder:
            made.connect(str(folder / path.name))
    except BaseException:
        made.close()
        raise
    return made


def may_speak(credentials: bytes) -> bool:
    """Whether the peer with these SO_PEERCRED is the same user as this process, or root."""
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return uid in (0, os.geteuid())


CREDENTIALS_SIZE: Final = _CREDENTIALS.size


@contextmanager
def _short_name(folder: Path) -> Iterator[Path]:
    """A name of the folder that is always short: a socket's address has 107 bytes."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
