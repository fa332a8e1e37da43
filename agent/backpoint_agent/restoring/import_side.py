"""A VM and its disks by ImportVApp: vCenter makes the VM and takes each disk as a streamOptimized
VMDK under a lease.

Needs no access to datastores, works on vSAN and vVols too, and makes new VMs only. Decides how a
lease is waited for, kept alive and given back, and which of its addresses takes which disk. How a
disk becomes a VMDK is in `stream_writer.py`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import urllib3
from pyVmomi import vim

from backpoint_agent.errors import Stopped, TaskFailed, VSphereError, WaitTooLong
from backpoint_agent.machine import VirtualDisk
from backpoint_agent.restoring.stream_writer import GRAIN_SIZE, pack_grain, stream_vmdk
from backpoint_agent.restoring.write_side import Advance
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.property_sweep import reference_of
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import TargetError
from backpoint_repo.image_reader import ImageReader, Stretch
from backpoint_repo.restore import disk_units, in_disk_order, read_unit

_LOOK_S: Final = 0.5
_RENEW_S: Final = 20.0
"""A lease ends 5 minutes after its last sign of life, as vCenter gives it."""
_SLOT: Final = re.compile(r"([A-Za-z]+)(\d+):(\d+)$")
_BUSES: Final = (("SCSI", "scsi"), ("Lsi", "scsi"), ("Bus", "scsi"), ("AHCI", "sata"),
    ("SATA", "sata"), ("NVME", "nvme"), ("IDE", "ide"))  # fmt: skip
_CONTENT_TYPE: Final = "application/x-vnd.vmware-streamVmdk"
_ANSWER_MAX: Final = 500


class ImportLease:
    """The lease of one ImportVApp, kept alive by a thread until `complete` or `abort`.

    machine: moref of the VM that is being made, "" until it is ready.
    """

    def __init__(self, vcenter: VCenter, lease: Any, stop: Stop) -> None:
        """lease: as `start_import` gives it."""
        self._vcenter = vcenter
        self._lease = lease
        self._stop = stop
        self._percent = 0
        self._ended = threading.Event()
        self._urls: list[Any] = []
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.machine = ""

    def await_ready(self, limit_s: float) -> None:
        """Raises WaitTooLong, TaskFailed, Stopped and as `VCenter.call`."""
        info = self._ready(limit_s)
        self.machine = reference_of(info.entity)
        self._urls = [url for url in info.deviceUrl or () if url.disk]
        self._keeper.start()

    def upload(self, number: int, disk: VirtualDisk, reader: ImageReader, advance: Advance) -> None:
        """Send disk `number` of the VM. Raises TargetError, TaskFailed, as `restore_disk`."""
        url = _url_of(self._urls, number, disk)

        def advance_both(size: int) -> None:
            self._stop.check()
            advance(size)

        with contextlib.closing(_packed(reader, advance_both)) as grains:
            self._post(url, disk, stream_vmdk(reader.size, secrets.randbits(32), grains))

    def complete(self) -> None:
        """The VM is whole. Raises as `call`."""
        self._end()
        self._vcenter.call("completing the import", self._lease.HttpNfcLeaseComplete, repeat=False)

    def abort(self) -> None:
        """Give it up; vCenter removes the VM, mostly. Raises as `call`."""
        self._end()
        self._vcenter.call("aborting the import", self._lease.HttpNfcLeaseAbort, repeat=False)

    def _post(self, url: Any, disk: VirtualDisk, body: Iterator[bytes]) -> None:
        headers = {"Content-Type": _CONTENT_TYPE, "Overwrite": "t"}
        answer = self._vcenter.http(
            "POST", url.url, headers=headers, body=body, thumbprint=url.sslThumbprint or None
        )
        try:
            said = answer.read(_ANSWER_MAX, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise self._vcenter.http_error(error, url.url) from error
        finally:
            answer.close()
        if answer.status not in (200, 201, 204):
            words = " ".join(said.decode(errors="replace").split())
            raise TargetError(
                f"the host refused {disk.label} with HTTP status {answer.status}: {words}"
            )

    def _ready(self, limit_s: float) -> Any:
        give_up_at = time.monotonic() + limit_s
        while True:
            state = self._vcenter.call("waiting for the import", lambda: self._lease.state)
            if state == "ready":
                return self._vcenter.call("reading the import's lease", lambda: self._lease.info)
            if state in ("error", "done"):
                error = self._vcenter.call("reading why", lambda: self._lease.error)
                raise TaskFailed(f"vCenter ended the import: {getattr(error, 'msg', state)}")
            if time.monotonic() > give_up_at:
                raise WaitTooLong(f"vCenter made no VM to import into within {limit_s:g} s")
            self._stop.wait(_LOOK_S)

    def _keep(self) -> None:
        while not self._ended.wait(_RENEW_S):
            # If it cannot be renewed, the upload will fail and say more than this could.
            with contextlib.suppress(VSphereError, Stopped):
                self._vcenter.call(
                    "keeping the import's lease",
                    lambda: self._lease.HttpNfcLeaseProgress(self._percent),
                    repeat=False,
                )

    def _end(self) -> None:
        self._ended.set()
        if self._keeper.is_alive():
            self._keeper.join()


def start_import(vcenter: VCenter, pool: Any, folder: Any, host: Any, spec: Any, what: str) -> Any:
    """The lease, not ready yet. Raises as `VCenter.call`."""
    import_spec = vim.vm.VmImportSpec(configSpec=spec)
    ask: Callable[[], Any] = lambda: pool.ImportVApp(import_spec, folder, host)  # noqa: E731
    return vcenter.call(what, ask, repeat=False)


def _url_of(urls: Sequence[Any], number: int, disk: VirtualDisk) -> Any:
    """By the disk's slot where the lease tells it ("/web/ParaVirtualSCSIController0:1"), else by
    the order of disks."""
    for url in urls:
        found = _SLOT.search(url.importKey or "")
        if found and "Controller" in found[1]:
            bus = next((bus for part, bus in _BUSES if part in found[1]), None)
            if f"{bus}{found[2]}:{found[3]}" == disk.slot:
                return url
    if number < len(urls):
        return urls[number]
    raise TargetError(f"vCenter gives no address to send {disk.label} to")


def _packed(reader: ImageReader, advance: Advance) -> Generator[tuple[int, bytes], None, None]:
    def deal_with(unit: Stretch) -> tuple[int, list[tuple[int, bytes]]]:
        return unit.length, _pack_unit(reader, unit) if unit.data else []

    with contextlib.closing(in_disk_order(disk_units(reader), deal_with, reader.lanes)) as units:
        for length, grains in units:
            yield from grains
            advance(length)


def _pack_unit(reader: ImageReader, unit: Stretch) -> list[tuple[int, bytes]]:
    """Units begin at multiples of 4 MiB within leaves of 32 MiB, so grains do not straddle them."""
    content = bytearray(unit.length)
    for offset, length, data in read_unit(reader, unit):
        if data is not None:
            content[offset - unit.offset : offset - unit.offset + length] = data
    view = memoryview(content)
    first = unit.offset // GRAIN_SIZE
    return [
        (first + at // GRAIN_SIZE, pack_grain(first + at // GRAIN_SIZE, view[at : at + GRAIN_SIZE]))
        for at in range(0, unit.length, GRAIN_SIZE)
    ]
