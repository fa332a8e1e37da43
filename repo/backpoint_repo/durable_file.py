"""One small file, written so that whoever looks finds the old content or the new one, never a part.

Decides nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

UNFINISHED: Final = ".unfinished"
"""Ending of what a crash may leave behind; nobody reads it."""
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write or replace the file; it is on the disk when this returns.

    mode: what the file has, whatever the umask says. Raises OSError.
    """
    unfinished = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
    descriptor = os.open(unfinished, _FLAGS, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
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
