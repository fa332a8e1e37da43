"""A session's folder as this machine sees it through the mount: awaited, listed, its .vmx written.

Decides that a .vmx is there whole or not at all, and durable before a host is told of it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from backpoint_agent.errors import WaitTooLong
from backpoint_agent.stopping import Stop
from backpoint_repo.durable_file import write_durably
from backpoint_repo.errors import TargetError

APPEARS_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.1
_FILES_MAX: Final = 100_000


def await_session(folder: Path, stop: Stop) -> None:
    """A mount shows a new session within moments. Raises WaitTooLong, Stopped, TargetError."""
    give_up_at = time.monotonic() + APPEARS_S
    while not _is_folder(folder):
        if time.monotonic() > give_up_at:
            raise WaitTooLong(
                f"{folder} did not appear within {APPEARS_S:g} s: is the repository mounted (or "
                "exported) there, with the same --live folder as the session's?"
            )
        stop.wait(_LOOK_EVERY_S)


def files_in(folder: Path) -> frozenset[str]:
    """Names. Raises TargetError."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise TargetError(f"{folder} cannot be read: {error.strerror}") from error
    return frozenset(names[:_FILES_MAX])


def write_vmx(path: Path, content: bytes) -> None:
    """Over the one that is there. Raises TargetError."""
    try:
        write_durably(path, content, 0o644)
    except OSError as error:
        raise TargetError(f"{path} cannot be written: {error.strerror}") from error


def _is_folder(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError as error:
        raise TargetError(f"{folder} cannot be reached: {error.strerror}") from error
