"""One commit of a session at a time, and none while it is discarded.

A commit's rebase deletes the layers that another commit would still be reading. The session itself
is free meanwhile: this is another lock than the one of the process that has it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.errors import NoSuchSession, SessionInUse
from backpoint_fusefs.live.system_refusal import refusal

_NAME: Final = "committing"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """No commit of this session begins meanwhile. Gone with its process.

    Raises SessionInUse where one is under way, NoSuchSession, and what `refusal` makes of the
    system's.
    """
    try:
        fd = os.open(folder / _NAME, _FLAGS, 0o600)
    except FileNotFoundError:
        raise NoSuchSession(f"there is no session {folder.name} in {folder.parent}") from None
    except OSError as error:
        raise refusal(error, f"{folder / _NAME} cannot be opened") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SessionInUse(
                f"the session {folder.name} is being committed; wait until that is done"
            ) from None
        yield
    finally:
        os.close(fd)
