"""Small files of a session, read as what they are: put there by anybody.

Decides that reading is bounded and follows no links, and nothing of what is in them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.errors import SessionDamaged

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_bounded(path: Path, limit: int) -> bytes:
    """A regular file of at most `limit` bytes. Raises SessionDamaged, OSError."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise SessionDamaged(f"{path} is missing") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise SessionDamaged(f"{path} is no file of this program's: odd, or too large")
        return file.read(limit)
