"""Disks on a datastore that is mounted here too (NFS): the frozen flat file, read as a local file.

Refuses to know how it came to be mounted; what may be opened there is `mounted_file.py`'s decision.
Holes are what the filesystem tells; over NFS before 4.2 that is none.

A mount whose server is gone hangs whoever touches it, and nothing in this process can end that: no
stop, no limit. Mount it `soft` (with a long `timeo`), so that the kernel gives up; an error is told
as such and never as zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.flat_disk import flat_file_of, refuse_delta, refuse_other_size
from backpoint_agent.transport.mounted_file import found_file, refuse_unmounted
from backpoint_repo.errors import SourceError
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.source.vmdk_descriptor import DESCRIPTOR_LIMIT


class DatastoreTransport:
    """`Transport` by mounted datastores."""

    name = "datastore"

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        """mounts: name of a datastore -> the folder where it is mounted."""
        self._mounts = dict(mounts)

    def prepare(self, frozen: FrozenMachine) -> OpenDatastore:
        """Raises TransportUnusable where a disk is elsewhere, or lies on an earlier snapshot."""
        for disk in frozen.disks:
            refuse_unmounted(self._mounts, disk)
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
        with found_file(mounts, path) as found:
            try:
                super().__init__(found)
            except SourceError as error:
                why = getattr(error.__cause__, "strerror", error)
                raise TransportUnusable(f"cannot open {path}: {why}") from error
        self._name = name or path
