"""Disks by an export lease: vCenter sends each as one streamOptimized VMDK, whole and in order.

Needs neither VDDK nor access to datastores, works on any storage and while the VM runs; saves no
reading, because there are no ranges. Decides which of the lease's files is which disk, and that a
stream that breaks cannot be taken up again. Refuses to know the format (`stream_optimized`) and how
a lease is kept (`export_lease`).
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Sequence
from typing import Final

import urllib3

from backpoint_agent.errors import CannotConnect, Stopped, TransportUnusable, VSphereError
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.forward_disk import ForwardDisk
from backpoint_agent.transport.stream_optimized import StreamOptimized
from backpoint_agent.vsphere.export_lease import ExportLease, LeasedDevice
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import SourceError

_PLACE: Final = re.compile(r"(?:^|/)(?:Virtual|ParaVirtual)([A-Za-z]+)Controller(\d+):(\d+)$")
_BUSES: Final = {
    "SCSI": "scsi", "LsiLogic": "scsi", "LsiLogicSAS": "scsi", "BusLogic": "scsi",
    "AHCI": "sata", "SATA": "sata", "NVME": "nvme", "IDE": "ide",
}  # fmt: skip
_OK: Final = 200
_LOOK_S: Final = 0.5


class ExportTransport:
    """`Transport` by ExportSnapshot."""

    name = "export"

    def __init__(self, vcenter: VCenter, ledger: Ledger, stop: Stop) -> None:
        self._vcenter = vcenter
        self._ledger = ledger
        self._stop = stop

    def prepare(self, frozen: FrozenMachine) -> OpenExport:
        """Take the lease. Raises TransportUnusable, VSphereError, Stopped."""
        lease = ExportLease(
            self._vcenter, self._ledger, frozen.machine, frozen.snapshot, self._stop
        )
        try:
            devices = match_devices(frozen.disks, lease.devices)
        except BaseException:
            lease.abort()
            raise
        return OpenExport(self._vcenter, lease, devices, self._stop)


class OpenExport:
    """`OpenTransport`: the lease and what is read through it.

    The first disk that is opened asks for its stream at once, so that a host that cannot be reached
    is known early; the others when they are first read, because a stream must not be kept waiting.
    """

    name = "export"
    reads_ranges = False

    def __init__(
        self,
        vcenter: VCenter,
        lease: ExportLease,
        devices: dict[str, LeasedDevice],
        stop: Stop,
    ) -> None:
        """devices: by the disks' keys; when all of them were read, the lease is given back."""
        self._vcenter = vcenter
        self._lease = lease
        self._devices = devices
        self._stop = stop
        self._lock = threading.Lock()
        self._unread = set(devices)
        self._open: list[ForwardDisk] = []
        self._streams: list[_Stream] = []
        self._closed = threading.Event()
        threading.Thread(target=self._heed_stop, name="export-stop", daemon=True).start()
        self.note = f"through {vcenter.name}, whole disks"

    @property
    def warnings(self) -> list[str]:
        """What could not be given back, known after `close`."""
        return self._lease.warnings

    def open(self, disk: VirtualDisk) -> ForwardDisk:
        """Raises TransportUnusable, SourceError, VSphereError."""
        stream = _Stream(self._vcenter, self._lease, self._devices[disk.key], disk, self._stop)
        self._streams.append(stream)
        source = ForwardDisk(
            disk.file,
            disk.size,
            stream.open,
            self._stop,
            on_whole=lambda: self._was_read(disk.key),
            hang_up=stream.hang_up,
        )
        if not self._open:
            source.begin()
        self._open.append(source)
        return source

    def close(self) -> None:
        """Close what is open and give the lease back. Idempotent, raises nothing."""
        self._closed.set()
        for source in self._open:
            source.close()
        self._lease.abort()

    def _heed_stop(self) -> None:
        """A server that has fallen silent does not hold up a stop until the network's limit."""
        while not self._closed.is_set():
            try:
                self._stop.wait(_LOOK_S)
            except Stopped:
                for stream in list(self._streams):
                    stream.hang_up()
                return

    def _was_read(self, key: str) -> None:
        with self._lock:
            self._unread.discard(key)
            if self._unread:
                return
        self._lease.complete()


class _Stream:
    """One GET of a disk, for one reading thread."""

    def __init__(
        self,
        vcenter: VCenter,
        lease: ExportLease,
        device: LeasedDevice,
        disk: VirtualDisk,
        stop: Stop,
    ) -> None:
        self._vcenter = vcenter
        self._lease = lease
        self._device = device
        self._disk = disk
        self._stop = stop
        self._answer: urllib3.BaseHTTPResponse | None = None

    def open(self) -> StreamOptimized:
        """Raises SourceError."""
        device = self._device
        try:
            answer = self._vcenter.http("GET", device.url, thumbprint=device.thumbprint)
        except VSphereError as error:
            raise SourceError(f"the export of {self._disk.file}: {error}") from error
        self._answer = answer
        if answer.status != _OK:
            answer.close()
            raise SourceError(
                f"the export of {self._disk.file}: {self._vcenter.name} answers {answer.status} "
                f"{answer.reason or ''}".rstrip()
            )
        return StreamOptimized(self._disk.file, self._read)

    def hang_up(self) -> None:
        """From any thread: a read that waits for the network ends."""
        answer = self._answer
        if answer is None:
            return
        # It is over already, or was given back.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            answer.shutdown()
        with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
            answer.close()

    def _read(self, count: int) -> bytes:
        assert self._answer is not None
        try:
            return self._answer.read(count)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # AttributeError, ValueError: the answer was closed by another thread meanwhile.
            self._stop.check()
            raise SourceError(self._words(error)) from error

    def _words(self, error: Exception) -> str:
        cut: VSphereError = CannotConnect("it was closed")
        if not isinstance(error, ValueError | AttributeError):
            cut = self._vcenter.http_error(error, self._device.url)
        lost = f"; the lease was lost before: {self._lease.trouble}" if self._lease.trouble else ""
        return (
            f"the export of {self._disk.file} broke off: {cut}{lost}; it cannot be taken up again, "
            "back the VM up anew"
        )


def match_devices(
    disks: Sequence[VirtualDisk], devices: Sequence[LeasedDevice]
) -> dict[str, LeasedDevice]:
    """The lease's file of each disk, by the disk's place; keys are the disks' keys.

    Never by order: two disks of one size would be confused, and nobody would notice. Raises
    TransportUnusable where a disk has no file, or two.
    """
    by_slot: dict[str, list[LeasedDevice]] = {}
    for device in devices:
        if slot := slot_of(device.key):
            by_slot.setdefault(slot, []).append(device)
    matched: dict[str, LeasedDevice] = {}
    for disk in disks:
        found = by_slot.get(disk.slot, [])
        if len(found) != 1:
            offered = ", ".join(device.key for device in devices) or "nothing"
            raise TransportUnusable(
                f"the export lease has {len(found)} files for the disk at {disk.slot} "
                f"({disk.label}); it offers {offered}"
            )
        matched[disk.key] = found[0]
    return matched


def slot_of(key: str) -> str | None:
    """ "scsi0:1" out of "/vm-70/ParaVirtualSCSIController0:1"; None for what is no disk's place."""
    found = _PLACE.search(key)
    bus = _BUSES.get(found[1]) if found else None
    return f"{bus}{int(found[2])}:{int(found[3])}" if found and bus else None
