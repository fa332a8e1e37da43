"""Disks by datastore file access: the frozen flat file, read in ranges from vCenter over HTTPS.

Decides which files are asked for and how many requests are under way at once. Needs nothing but
the login, knows no holes, and is the slowest way that reads ranges. Refuses to know how a file's
bytes travel (`datastore_files`). On VMFS a host may keep a running VM's files to itself: then the
server answers with an error, which is found out when the disk is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Final

from backpoint_agent.errors import TransportUnusable, VSphereError
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.flat_disk import flat_file_of, refuse_delta, refuse_other_size
from backpoint_agent.vsphere.datastore_files import REQUEST_LIMIT, DatastoreFile
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import Extent
from backpoint_repo.source.vmdk_descriptor import DESCRIPTOR_LIMIT

_LOOK_S: Final = 0.25


class HttpsTransport:
    """`Transport` by `/folder` of a vCenter."""

    name = "https"

    def __init__(self, connections: int, vcenter: VCenter, stop: Stop) -> None:
        """connections: requests at the same time, of one VM."""
        self._connections = connections
        self._vcenter = vcenter
        self._stop = stop

    def prepare(self, frozen: FrozenMachine) -> OpenHttps:
        """Asks nobody yet. Raises TransportUnusable where a disk lies on an earlier snapshot."""
        for disk in frozen.disks:
            refuse_delta(disk)
        return OpenHttps(frozen.machine.datacenter, self._connections, self._vcenter, self._stop)


class OpenHttps:
    """`OpenTransport`: one VM's disks, all of which share the connections."""

    name = "https"
    reads_ranges = True
    warnings: Final[Sequence[str]] = ()

    def __init__(self, datacenter: str, connections: int, vcenter: VCenter, stop: Stop) -> None:
        self._datacenter = datacenter
        self._vcenter = vcenter
        self._stop = stop
        self._requests = ThreadPoolExecutor(connections, "https-disk")
        self.note = f"through {vcenter.name}, {connections} connections"

    def open(self, disk: VirtualDisk) -> HttpsImage:
        """Find the flat file. Raises TransportUnusable, VSphereError."""
        descriptor = self._file(disk.file)
        if (length := descriptor.size()) > DESCRIPTOR_LIMIT:
            raise TransportUnusable(
                f"{disk.file} has {length} bytes: it is no descriptor of a disk"
            )
        flat = self._file(flat_file_of(disk, descriptor.read_all(DESCRIPTOR_LIMIT)))
        refuse_other_size(disk, flat.name, flat.size())
        return HttpsImage(disk, flat, self._requests, self._stop)

    def close(self) -> None:
        """Wait for requests under way, unless a stop was asked for: each has its own limit."""
        self._requests.shutdown(wait=self._stop.reason is None, cancel_futures=True)

    def _file(self, path: str) -> DatastoreFile:
        return DatastoreFile(self._vcenter, self._datacenter, path, self._stop)


class HttpsImage:
    """`ImageSource` of one flat file."""

    def __init__(
        self, disk: VirtualDisk, flat: DatastoreFile, requests: ThreadPoolExecutor, stop: Stop
    ) -> None:
        self._disk = disk
        self._flat = flat
        self._requests = requests
        self._stop = stop
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """The disk's file, "[datastore] folder/name.vmdk"."""
        return self._disk.file

    @property
    def size(self) -> int:
        """Bytes."""
        return self._disk.size

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All is data: the server does not tell holes."""
        if length:
            yield Extent(offset, length, hole=False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` by requests of up to REQUEST_LIMIT bytes, several at a time.

        Raises SourceError naming disk and offset, Stopped.
        """
        target = buffer.cast("B")
        if self._closed.is_set():
            raise self._was_closed()
        try:
            requests = {
                offset + start: self._requests.submit(
                    self._flat.read_into, offset + start, target[start : start + REQUEST_LIMIT]
                )
                for start in range(0, len(target), REQUEST_LIMIT)
            }
        except RuntimeError as error:  # shut down between the look and now
            raise self._was_closed() from error
        self._await(requests)

    def close(self) -> None:
        """Later reads fail. Idempotent."""
        self._closed.set()

    def _await(self, requests: dict[int, Future[None]]) -> None:
        """requests: by offset.

        All are over when this returns or raises SourceError: the buffer is the caller's again. A
        stop is not held up by a server that does not answer.
        """
        for offset, request in requests.items():
            while not wait((request,), _LOOK_S).done:
                self._stop.check()
            try:
                request.result()
            except CancelledError as error:
                raise self._was_closed() from error
            except VSphereError as error:
                for other in requests.values():
                    other.cancel()
                wait(requests.values())
                what = f"{self._disk.label} ({self.name}) at offset {offset}"
                raise SourceError(f"cannot read {what}: {error}") from error

    def _was_closed(self) -> SourceError:
        return SourceError(f"{self.name} was closed while it was read")
