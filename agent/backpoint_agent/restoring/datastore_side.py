"""Disks written on a datastore that is mounted here too (NFS): their flat files, in place.

Decides that nothing but a plain file of the disk's size is ever written. How it is found is for
`transport.mounted_file`, how it is read again for `transport.datastore`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.restoring.write_side import Advance, fill_target
from backpoint_agent.transport.datastore import OpenDatastore
from backpoint_agent.transport.flat_disk import flat_file_of, refuse_other_size
from backpoint_agent.transport.mounted_file import found_file, refuse_unmounted
from backpoint_repo.errors import TargetError
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.source.vmdk_descriptor import DESCRIPTOR_LIMIT
from backpoint_repo.target.contract import Content, ImageTarget
from backpoint_repo.target.raw_target import pwrite_all

_ZEROS: Final = memoryview(bytes(1 << 20))


class DatastoreSide:
    """`WriteSide` by mounted datastores."""

    name = "datastore"
    writes_ranges = True

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        """mounts: name of a datastore -> the folder where it is mounted."""
        self._mounts = dict(mounts)
        self._reading = OpenDatastore(self._mounts)

    def fill(self, disk: VirtualDisk, reader: ImageReader, advance: Advance) -> None:
        """Only what is not zero is written: the file stays sparse."""
        fill_target(self._target(disk, empty=True), reader, advance)

    def target(self, disk: VirtualDisk) -> ImageTarget:
        """The flat file, in place."""
        return self._target(disk, empty=False)

    def source(self, disk: VirtualDisk) -> ImageSource:
        """The flat file."""
        refuse_unmounted(self._mounts, disk)
        return self._reading.open(disk)

    def close(self) -> None:
        """Nothing to give back."""

    def _target(self, disk: VirtualDisk, *, empty: bool) -> FlatFileTarget:
        refuse_unmounted(self._mounts, disk)
        descriptor = _open(self._mounts, disk.file, os.O_RDONLY)
        with open(descriptor, "rb") as file:
            flat = flat_file_of(disk, file.read(DESCRIPTOR_LIMIT + 1))
        return FlatFileTarget(_open(self._mounts, flat, os.O_RDWR), disk, flat, empty=empty)


class FlatFileTarget:
    """`ImageTarget` over an existing file. empty: it reads as zeros so far."""

    def __init__(self, descriptor: int, disk: VirtualDisk, name: str, *, empty: bool) -> None:
        """Takes the descriptor over. Raises TransportUnusable where the file has another size."""
        self._descriptor = descriptor
        self._name = name
        self._empty = empty
        try:
            refuse_other_size(disk, name, os.fstat(descriptor).st_size)
        except BaseException:
            self.abandon()
            raise

    def write_at(self, offset: int, data: Content) -> None:
        """Raises TargetError."""
        try:
            pwrite_all(self._descriptor, offset, data)
        except OSError as error:
            raise self._failed(f"write at offset {offset} of", error) from error

    def zero_at(self, offset: int, length: int) -> None:
        """Raises TargetError."""
        end = offset if self._empty else offset + length
        while offset < end:
            part = _ZEROS[: end - offset]
            self.write_at(offset, part)
            offset += len(part)

    def finish(self) -> None:
        """Raises TargetError."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed("write", error) from error
        self.abandon()

    def abandon(self) -> None:
        """Leave it as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _failed(self, action: str, error: OSError) -> TargetError:
        return TargetError(f"cannot {action} {self._name}: {error.strerror}")


def _open(mounts: Mapping[str, Path], path: str, flags: int) -> int:
    """A descriptor of a plain file of a mounted datastore. Raises TransportUnusable."""
    with found_file(mounts, path) as found:
        try:
            return os.open(found, flags | os.O_CLOEXEC)
        except OSError as error:
            raise TransportUnusable(f"cannot open {path}: {error.strerror}") from error
