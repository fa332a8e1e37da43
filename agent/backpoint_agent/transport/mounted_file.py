"""Files of datastores that are mounted here too (NFS): found by their names in vCenter.

Decides that nothing outside the mount is ever opened, whatever names vCenter or a descriptor gives:
no `..`, no symbolic link, no device. Whether a file is read or written is the caller's business.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TaskFailed, TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.vsphere.datastore_files import split_datastore_path

_STEP_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def refuse_unmounted(mounts: Mapping[str, Path], disk: VirtualDisk) -> None:
    """Raises TransportUnusable where `mounts` (name -> folder) lacks the disk's datastore."""
    if disk.datastore not in mounts:
        raise TransportUnusable(
            f"the datastore {disk.datastore!r} of {disk.label} is not mounted here: mount it and "
            "name the folder in transports.datastores"
        )


@contextmanager
def found_file(mounts: Mapping[str, Path], path: str) -> Iterator[str]:
    """A name that opens exactly the file "[datastore] folder/name" and no other, as long as the
    context lasts.

    Raises TransportUnusable where there is no plain file, or a symbolic link is on the way.
    """
    datastore, file = _split(path)
    mount, steps = mounts[datastore], file.split("/")
    with ExitStack() as opened:
        try:
            at = os.open(mount, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, at)
            for step in steps[:-1]:
                at = os.open(step, _STEP_FLAGS | os.O_DIRECTORY, dir_fd=at)
                opened.callback(os.close, at)
            at = os.open(steps[-1], _STEP_FLAGS, dir_fd=at)
            opened.callback(os.close, at)
            plain = stat.S_ISREG(os.fstat(at).st_mode)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise TransportUnusable(f"cannot open {path} below {mount}: {reason}") from error
        if not plain:
            raise TransportUnusable(f"{path} below {mount} is not a plain file")
        yield f"/proc/self/fd/{at}"


def _split(path: str) -> tuple[str, str]:
    try:
        return split_datastore_path(path)
    except TaskFailed as error:
        raise TransportUnusable(str(error)) from error
