"""The end of a mount as seen from outside: taken away, its process awaited, a dead one cleared."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.mount_point import find_mount
from backpoint_fusefs.point_realm import PROCESS_XATTR
from backpoint_fusefs.process_mark import process_mark
from backpoint_repo.errors import RepositoryError, UsageError

_ANSWER_S: Final = 5.0
_END_S: Final = 30.0
_TAKE_AWAY_S: Final = 60.0
"""A mount on a block device is only gone once its process has said so."""


class MountBusy(UsageError):
    """A program has a file of the mount open, or works in one of its folders."""


@dataclass(frozen=True)
class _Server:
    """The process behind a mount; pidfd is -1 where it is gone or does not answer."""

    pidfd: int


def unmount(path: Path, *, lazy: bool) -> None:
    """Take the mount at `path` away and wait until its process has ended.

    lazy: also where files are open; programs that have them get errors. Raises UsageError where
    there is no mount of ours, or it is in use; RepositoryError where the process does not end.
    """
    mounted = find_mount(path)
    if mounted is None:
        raise UsageError(f"nothing is mounted at {path}")
    if not mounted.ours:
        raise UsageError(f"{path} is a mount of another kind ({mounted.kind}); umount it yourself")
    server = _server_of(path)
    try:
        take_away(path, lazy=lazy)
        if server.pidfd >= 0 and not select.select([server.pidfd], [], [], _END_S)[0]:
            raise RepositoryError(
                f"{path} is unmounted, but its process still runs: a store may not be answering"
            )
    finally:
        if server.pidfd >= 0:
            os.close(server.pidfd)


def take_away(path: Path, *, lazy: bool) -> None:
    """Unmount, whether its process lives or not. Raises MountBusy, UsageError."""
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(path)]
    pipe = subprocess.PIPE
    try:
        tool = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, errors="replace")
    except FileNotFoundError:
        raise UsageError("fusermount3 is missing: install the package fuse3") from None
    try:
        _, said = tool.communicate(timeout=_TAKE_AWAY_S)
    except subprocess.TimeoutExpired:
        # Not waited for: the kernel lets it go only when the mount's process has.
        tool.kill()
        raise UsageError(f"cannot unmount {path}: its process does not answer") from None
    if tool.returncode == 0:
        return
    why = said.strip()
    if "busy" in why:
        raise MountBusy(
            f"{path} is in use: a program has a file open in it, or works in one of its folders, "
            f"or a disk in it is mounted (`fuser -vm {path}` lists them). End them and try again, "
            "or use --lazy"
        )
    raise UsageError(f"cannot unmount {path}: {why}")


def _server_of(path: Path) -> _Server:
    """Asks the mount itself, in a thread: a mount whose process hangs never answers."""
    found: list[_Server] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            mark = os.getxattr(path, PROCESS_XATTR)
            pid = int(mark.split()[0])
            pidfd = os.pidfd_open(pid)
            # In another container the number may be some other process's.
            if process_mark(pid) == mark:
                found.append(_Server(pidfd))
            else:
                os.close(pidfd)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    return found[0] if found else _Server(-1)
