"""Sessions as `live/` lists them, without opening any: their names, numbers and records.

Decides that a session whose record cannot be read is shown too: it must not look discarded.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.mounted.live_inodes import session_root, take_live_apart, unknown_session
from backpoint_fusefs.live.session_names import checked_name
from backpoint_fusefs.live.session_record import SessionRecord, read_record
from backpoint_repo.errors import UnknownFormat, UsageError

_LOG = logging.getLogger("backpoint.live")


@dataclass(frozen=True)
class ShownSession:
    """A session in the list. inode: of its folder. record: None where it cannot be read."""

    name: bytes
    folder: Path
    inode: int
    record: SessionRecord | None
    created: float

    @property
    def number(self) -> int:
        """See `live_inodes.session_number`."""
        return take_live_apart(self.inode).session


def shown_sessions(home: Path) -> dict[int, ShownSession]:
    """On a worker: all sessions, by number. Raises OSError."""
    found: dict[int, ShownSession] = {}
    for folder in sorted(
        Path(entry.path)
        for entry in os.scandir(home)
        if entry.is_dir(follow_symlinks=False) and _is_session_name(entry.name)
    ):
        shown = _shown(folder)
        if shown is not None and shown.number in found:
            _LOG.error("%s is not shown: another session has its inode number", folder)
        elif shown is not None:
            found[shown.number] = shown
    return found


def _is_session_name(name: str) -> bool:
    """Or the folder is one that is being made or removed."""
    with suppress(UsageError):
        return bool(checked_name(name))
    return False


def _shown(folder: Path) -> ShownSession | None:
    """None where it is gone, or no session."""
    name = folder.name.encode("utf-8", "surrogateescape")
    try:
        record = read_record(folder)
    except (SessionDamaged, UnknownFormat):
        with suppress(OSError):
            inode = unknown_session(folder.name)
            return ShownSession(name, folder, inode, None, folder.stat().st_mtime)
        return None
    inode = session_root(record.session_id)
    return ShownSession(name, folder, inode, record, record.created)
