"""The end of a session's folder: what it holds on disk goes first, then its holds, then it.

In this order because only the folder knows of which holds it is the owner: a crash, or a store that
cannot be reached, leaves a folder with which the next one who looks goes on.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.bounded_file import read_bounded
from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.session_lock import LOCK
from backpoint_fusefs.live.session_record import RECORD, read_record
from backpoint_repo.errors import RepositoryError, UsageError
from backpoint_repo.point_hold import drop_holds
from backpoint_repo.sealed_store import SealedStore

ID: Final = "id"
"""The session's id once more: a damaged record must not hold a point for ever."""
_LAST: Final = (RECORD, ID, LOCK)


def end_folder(folder: Path, sealed: SealedStore) -> None:
    """Delete it and drop its holds; who calls has its lock. Raises OSError, and what a store raises
    where a hold cannot be dropped; the folder is there then, almost empty."""
    for entry in list(os.scandir(folder)):
        if entry.name not in _LAST:
            _delete(Path(entry.path))
    if session_id := _session_id(folder):
        drop_holds(sealed, session_id)
    for name in _LAST:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def size_of(folder: Path) -> int:
    """Bytes that a folder takes on disk with all that is in it, as far as it can be seen."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in (".", *names):
            with suppress(OSError):
                found = os.stat(os.path.join(where, name), follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    total += found.st_blocks * 512
    return total


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _session_id(folder: Path) -> str | None:
    with suppress(SessionDamaged, RepositoryError):
        return read_record(folder).session_id
    with suppress(SessionDamaged, OSError, UnicodeDecodeError, UsageError):
        return read_bounded(folder / ID, 64).decode().strip()
    return None
