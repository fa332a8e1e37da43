"""Disks written on a datastore that is mounted here too (NFS): their flat files, in place.

Decides that nothing but a plain file of the disk's size, reached without symbolic links, is ever
written. What a flat disk is, and how it is read again, is the transport's business
(`transport.datastore`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.restoring.write_side import Advance, fill_target
from backpoint_agent.transport.datastore import OpenDatastore
from backpoint_agent.transport.flat_disk import flat_file_of, refuse_other_size
from backpoint_agent.vsphere.datastore_files import split_datastore_path
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
        self._refuse_unmounted(disk)
        return self._reading.open(disk)

    def close(self) -> None:
        """Nothing to give back."""

    def _target(self, disk: VirtualDisk, *, empty: bool) -> FlatFileTarget:
        self._refuse_unmounted(disk)
        descriptor = _open_beneath(self._mounts, disk.file, os.O_RDONLY)
        with open(descriptor, "rb") as file:
            flat = flat_file_of(disk, file.read(DESCRIPTOR_LIMIT + 1))
        return FlatFileTarget(_open_beneath(self._mounts, flat, os.O_RDWR), disk, flat, empty=empty)

    def _refuse_unmounted(self, disk: VirtualDisk) -> None:
        if disk.datastore not in self._mounts:
            raise TransportUnusable(
                f"the datastore {disk.datastore!r} of {disk.label} is not mounted here: mount it "
                "and name the folder in transports.datastores"
            )


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


def _open_beneath(mounts: Mapping[str, Path], path: str, flags: int) -> int:
    """A descriptor of a plain file of a mounted datastore. Raises TransportUnusable."""
    datastore, file = split_datastore_path(path)
    *folders, name = file.split("/")
    walk = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        at = os.open(mounts[datastore], walk & ~os.O_NOFOLLOW)
        for folder in folders:
            above = at
            try:
                at = os.open(folder, walk, dir_fd=above)
            finally:
                os.close(above)
        try:
            # Without O_NONBLOCK, opening a fifo would wait for its other end for ever.
            found = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
    except OSError as error:
        raise TransportUnusable(
            f"cannot open {path} below {mounts[datastore]}: {error.strerror}"
        ) from error
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise TransportUnusable(f"{path} below {mounts[datastore]} is not a plain file")
    return found
