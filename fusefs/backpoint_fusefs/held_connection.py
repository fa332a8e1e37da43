"""A second hold on a mount's connection to the kernel, so that its process can die without errors.

When the last descriptor of a FUSE connection is closed, every request under way fails, and an NFS
server tells its clients of an I/O error: a running guest remounts its disk read-only. As long as
the descriptor is held here, requests wait instead, until whoever would pass the error on is gone.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_SYS_PIDFD_GETFD: Final = 438
"""The same number on every architecture."""
_DEVICE: Final = "/dev/fuse"


def hold_connection(pid: int, pidfd: int) -> list[int]:
    """Copies of the process's descriptors of /dev/fuse; empty where the kernel refuses."""
    copies = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(link) == _DEVICE:
                copies.append(_copied(pidfd, int(link.name)))
    return copies


def _copied(pidfd: int, number: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    copy = int(libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0))  # close-on-exec by itself
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return copy
