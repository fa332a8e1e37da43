"""Disks written by datastore file access: each flat file sent whole, holes as zeros, over HTTPS.

Needs nothing but the login, and is for disks of some GiB: what was thin may become thick, and a
part of a disk cannot be written alone. Refuses to know how a file's bytes travel
(`datastore_files`).
"""

from __future__ import annotations

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.restoring.disk_stream import DiskStream
from backpoint_agent.restoring.write_side import Advance
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.flat_disk import flat_file_of
from backpoint_agent.transport.https import HttpsTransport
from backpoint_agent.vsphere.datastore_files import DatastoreFile
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.source.vmdk_descriptor import DESCRIPTOR_LIMIT
from backpoint_repo.target.contract import ImageTarget


class HttpsSide:
    """`WriteSide` by `/folder` of a vCenter."""

    name = "https"
    writes_ranges = False

    def __init__(self, connections: int, vcenter: VCenter, machine: Machine, stop: Stop) -> None:
        """connections: requests at the same time, when it reads."""
        self._vcenter = vcenter
        self._datacenter = machine.datacenter
        self._stop = stop
        frozen = FrozenMachine(machine, "", machine.disks)
        self._reading = HttpsTransport(connections, vcenter, stop).prepare(frozen)

    def fill(self, disk: VirtualDisk, reader: ImageReader, advance: Advance) -> None:
        """One PUT."""
        descriptor = self._file(disk.file).read_all(DESCRIPTOR_LIMIT)
        with DiskStream(reader, advance) as stream:
            self._file(flat_file_of(disk, descriptor)).write(stream, reader.size)

    def target(self, disk: VirtualDisk) -> ImageTarget:
        """There is none."""
        raise TransportUnusable(f"https can only write {disk.label} whole")

    def source(self, disk: VirtualDisk) -> ImageSource:
        """The flat file, in ranges."""
        return self._reading.open(disk)

    def close(self) -> None:
        """End requests."""
        self._reading.close()

    def _file(self, path: str) -> DatastoreFile:
        return DatastoreFile(self._vcenter, self._datacenter, path, self._stop)
