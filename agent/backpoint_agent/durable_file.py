"""One file, written so that whoever looks finds the old content or the new one, never a part.

Decides nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from backpoint_agent.state_folder import fsync_folder

UNFINISHED: Final = ".unfinished"
"""Ending of what a crash may leave; the next writer of the folder removes it."""

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_durably(path: Path, data: bytes, mode: int) -> None:
    """Write or replace the file; it is on the disk when this returns.

    mode: what the file has, whatever the umask says. Raises OSError.
    """
    unfinished = path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}{UNFINISHED}")
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
