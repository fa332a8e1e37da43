"""Disks on a datastore that is mounted here too (NFS): the frozen flat file, read as a local file.

Decides that nothing outside the mount is ever opened, whatever names vCenter or a descriptor gives:
no `..`, no symbolic link, no device. Refuses to know how it came to be mounted. Holes are what the
filesystem tells; over NFS before 4.2 that is none.

A mount whose server is gone hangs whoever touches it, and nothing in this process can end that: no
stop, no limit. Mount it `soft` (with a long `timeo`), so that the kernel gives up; an error is told
as such and never as zeros.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TaskFailed, TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.flat_disk import flat_file_of, refuse_delta, refuse_other_size
from backpoint_agent.vsphere.datastore_files import split_datastore_path
from backpoint_repo.errors import SourceError
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.source.vmdk_descriptor import DESCRIPTOR_LIMIT

_STEP_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class DatastoreTransport:
    """`Transport` by mounted datastores."""

    name = "datastore"

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        """mounts: name of a datastore -> the folder where it is mounted."""
        self._mounts = dict(mounts)

    def prepare(self, frozen: FrozenMachine) -> OpenDatastore:
        """Raises TransportUnusable where a disk is elsewhere, or lies on an earlier snapshot."""
        for disk in frozen.disks:
            if disk.datastore not in self._mounts:
                raise TransportUnusable(
                    f"the datastore {disk.datastore!r} of {disk.label} is not mounted here: mount "
                    "it and name the folder in transports.datastores"
                )
            refuse_delta(disk)
        return OpenDatastore(self._mounts)


class OpenDatastore:
    """`OpenTransport`; holds nothing itself."""

    name = "datastore"
    reads_ranges = True
    warnings: Final[Sequence[str]] = ()

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._mounts = mounts
        self.note = ""

    def open(self, disk: VirtualDisk) -> RawImage:
        """Open the flat file. Raises TransportUnusable, SourceError."""
        flat = flat_file_of(disk, self._descriptor(disk.file))
        image = _MountedFile(self._mounts, flat, disk.file)
        try:
            refuse_other_size(disk, flat, image.size)
        except TransportUnusable:
            image.close()
            raise
        return image

    def close(self) -> None:
        """Nothing to give back."""

    def _descriptor(self, path: str) -> bytes:
        with closing(_MountedFile(self._mounts, path)) as file:
            if file.size > DESCRIPTOR_LIMIT:
                raise TransportUnusable(
                    f"{path} has {file.size} bytes: it is no descriptor of a disk"
                )
            data = bytearray(file.size)
            file.read_into(0, memoryview(data))
            return bytes(data)


class _MountedFile(RawImage):
    """A plain file of a mounted datastore, called by its path there or as it is told."""

    def __init__(self, mounts: Mapping[str, Path], path: str, name: str = "") -> None:
        datastore, file = _split(path)
        with _beneath(mounts[datastore], file.split("/"), path) as found:
            try:
                super().__init__(found)
            except SourceError as error:
                why = getattr(error.__cause__, "strerror", error)
                raise TransportUnusable(f"cannot open {path}: {why}") from error
        self._name = name or path


@contextmanager
def _beneath(mount: Path, steps: Sequence[str], path: str) -> Iterator[str]:
    """A name that opens exactly this file and no other, as long as the context lasts.

    Raises TransportUnusable where there is no plain file, or a symbolic link is on the way.
    """
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
