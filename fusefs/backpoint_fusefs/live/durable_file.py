"""Small files of a session: replaced so that whoever looks finds the old one or the new one whole.

Decides nothing of what is in them. What lies on disk may have been put there by anybody, so reading
is bounded and follows no links.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.errors import SessionDamaged

UNFINISHED: Final = ".unfinished"
"""Ending of what a crash may leave behind; nobody reads it."""
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_durably(path: Path, data: bytes) -> None:
    """Write or replace a file of mode 0600; it is on the disk when this returns. Raises OSError."""
    unfinished = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
    descriptor = os.open(unfinished, _WRITE, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    fsync_folder(path.parent)


def delete_unfinished(folder: Path) -> None:
    """What a crash left of `write_durably`. For who writes alone there. Raises OSError."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def fsync_folder(path: Path) -> None:
    """Make durable which names are in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit: int) -> bytes:
    """A regular file of at most `limit` bytes. Raises SessionDamaged, OSError."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        raise SessionDamaged(f"{path} is missing") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise SessionDamaged(f"{path} is no file of this program's: odd, or too large")
        return file.read(limit)
