"""Where a mount in the background says what goes wrong: a file of its own, readable by its owner.

Decides the file's place and the lines' form.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

from backpoint_fusefs.file_names import file_name
from backpoint_repo.errors import UsageError
from backpoint_repo.terminal import printable

_FOR_ROOT: Final = Path("/var/log/backpoint")
_SIZE_MAX: Final = 10 << 20
"""A log larger than this is begun anew, with the old one kept beside it."""


class _OneLine(logging.Formatter):
    """Names in messages come from guests: nothing of them may look like another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def log_path(mount_point: Path) -> Path:
    """/var/log/backpoint for root, the user's state directory for others."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    folder = _FOR_ROOT if os.geteuid() == 0 else Path(state) / "backpoint"
    name = file_name(f"mount{mount_point}.log".replace("/", "-"))
    return folder / os.fsdecode(name)


def open_log(path: Path) -> int:
    """A descriptor to append to. Raises UsageError where the file cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _SIZE_MAX:
            path.replace(path.with_name(path.name + ".1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"cannot write the log {path}: {error.strerror}") from error


def log_to_stderr() -> None:
    """From now on log records of all libraries go to what is stderr now."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
