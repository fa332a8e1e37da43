"""A folder in which nobody but us can write, made where it is missing.

Decides what makes a folder ours: whoever else could write there would choose what we act upon.
Knows nothing of what is kept in it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import UsageError

PRIVATE: Final = 0o700
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def make_private_folder(path: Path) -> None:
    """Make a folder that only we can enter, durably, or check one that is there.

    One that others may read is taken as it is: somebody may have wanted that. Raises UsageError
    where it is not ours alone, OSError where it cannot be made or looked at.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE, exist_ok=True)
        fsync_folder(path.parent)
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is in the way: a folder is needed there")
    if found.st_uid != os.geteuid():
        raise UsageError(
            f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()} who runs this"
        )
    if found.st_mode & _OTHERS_WRITE:
        raise UsageError(f"{path} can be written by others; say `chmod go-w {path}`")
