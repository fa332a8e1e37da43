"""A mount of our own for the sessions that are booted: private, and gone with us.

Decides where it is and when a session's folder is there. Starts its process, so it must be made
before this process has threads; several machines may boot from one.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.live.errors import SessionInUse
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_fusefs.mount_log import log_path, open_log
from backpoint_fusefs.mount_point import find_mount
from backpoint_fusefs.mounting import MountPlan
from backpoint_fusefs.served_mount import ServedMount
from backpoint_repo.repository import Repository

_CACHE_BYTES: Final = 256 << 20
_LOG: Final = Path("/boot")
_THERE_S: Final = 15.0
"""Opening a session after a crash replays its logs."""


class SessionMount:
    """A context manager. scratch: a private folder for whoever boots, gone when it is left."""

    def __init__(
        self, repository: Repository, home: SessionHome, cache_bytes: int = _CACHE_BYTES
    ) -> None:
        """Raises what mounting raises."""
        self._home = home
        with ExitStack() as opened:
            self.scratch = Path(tempfile.mkdtemp(prefix="backpoint-boot-"))
            # Not what is still mounted there, should it not go away: rmtree would go through it.
            opened.callback(_remove, self.scratch)
            place = self.scratch / "mount"
            place.mkdir()
            self._live = place / "live"
            log = log_path(_LOG)
            descriptor = open_log(log)
            try:
                plan = MountPlan(repository, place, cache_bytes, live=home.folder)
                mount = ServedMount(plan, descriptor, str(log))
            finally:
                os.close(descriptor)
            opened.enter_context(mount)
            self._opened = opened.pop_all()

    def __enter__(self) -> SessionMount:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Harmless when repeated."""
        self._opened.close()

    def folder(self, session: str) -> Path:
        """Where its files are, writable. Raises SessionInUse, MachineFailed."""
        folder = self._live / session
        deadline = time.monotonic() + _THERE_S
        while True:
            try:
                os.listdir(folder)
            except OSError as error:
                missing = error.errno in (errno.ENOENT, errno.ESTALE)
                if error.errno in (errno.EBUSY, errno.EAGAIN, errno.EACCES):
                    raise SessionInUse(
                        f"the session {session} is used by another process; unmount or end that, "
                        "or start a session of your own"
                    ) from error
                if not missing or time.monotonic() > deadline:
                    raise MachineFailed(
                        f"the session {session} cannot be opened ({error.strerror}); "
                        f"{log_path(_LOG)} tells more"
                    ) from error
                time.sleep(0.02)
            else:
                return folder


def _remove(scratch: Path) -> None:
    if find_mount(scratch / "mount") is None:
        shutil.rmtree(scratch, ignore_errors=True)
