"""Disks by HotAdd: the frozen file is attached to the VM that this agent runs in, and is read as a
block device there.

The fastest way without VDDK on any datastore that the proxy's host sees. Decides when a device that
appeared is believed to be the disk, and that everything is detached again before the snapshot goes:
a snapshot whose file is still attached elsewhere leaves a delta behind. Refuses to know how a VM is
reconfigured (`attached_disk`).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

from backpoint_agent.errors import TransportUnusable
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.settings.model import HotAddSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.attached_disk import AttachedDisk, Proxy, find_proxy
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.transport.proxy_disks import (
    ProxyDevices,
    find_device,
    hex_of,
    plan_slot,
)
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import BackpointError, SourceError
from backpoint_repo.source.raw_image import RawImage

_LOOK_S: Final = 0.1


class HotAddTransport:
    """`Transport` by the proxy VM."""

    name = "hotadd"

    def __init__(
        self, settings: HotAddSettings, vcenter: VCenter, ledger: Ledger, stop: Stop
    ) -> None:
        self._settings = settings
        self._vcenter = vcenter
        self._ledger = ledger
        self._stop = stop
        self._lock = threading.Lock()
        self._proxy: Proxy | None = None

    def prepare(self, frozen: FrozenMachine) -> OpenHotAdd:
        """Find the proxy; nothing is attached yet. Raises TransportUnusable, VSphereError."""
        by_id = self._settings.by_id
        if not by_id.is_dir():
            raise TransportUnusable(f"there is no folder {by_id}, where the kernel names disks")
        proxy = self._found_proxy()
        if frozen.machine.moref == proxy.moref:
            raise TransportUnusable(f"{proxy.name} is the proxy VM: it cannot attach its own disks")
        for disk in frozen.disks:
            _digits(disk)
        plan_slot(proxy.name, proxy.devices())
        return OpenHotAdd(self._settings, proxy, frozen.machine, self._stop)

    def _found_proxy(self) -> Proxy:
        """Looked for each time, because it may have gone; one object, because changes of it wait
        for each other."""
        found = find_proxy(self._vcenter, self._ledger, self._settings.proxy)
        with self._lock:
            if self._proxy is None or self._proxy.moref != found.moref:
                self._proxy = found
            return self._proxy


class OpenHotAdd:
    """`OpenTransport`: what of one VM is attached to the proxy."""

    name = "hotadd"
    reads_ranges = True

    def __init__(
        self, settings: HotAddSettings, proxy: Proxy, machine: Machine, stop: Stop
    ) -> None:
        self._settings = settings
        self._proxy = proxy
        self._machine = machine
        self._stop = stop
        self._attached: list[tuple[AttachedDisk, list[RawImage]]] = []
        self.note = f"by the proxy VM {proxy.name}"
        self.warnings: list[str] = []
        """What could not be detached, known after `close`; the ledger has it."""

    def open(self, disk: VirtualDisk) -> RawImage:
        """Attach it and wait for the block device. Raises TransportUnusable, VSphereError."""
        digits = _digits(disk)
        attached = self._proxy.attach(
            self._machine,
            disk,
            self._stop,
            check=lambda devices: self._refuse_double(devices, digits),
        )
        images: list[RawImage] = []
        self._attached.append((attached, images))
        images.append(self._await_device(disk, digits))
        return images[0]

    def close(self) -> None:
        """Close what is read, then detach. Idempotent, raises nothing."""
        while self._attached:
            attached, images = self._attached.pop()
            for image in images:
                image.close()
            try:
                self._proxy.detach(attached)
            except BackpointError as error:
                self.warnings.append(
                    f"{error}; {attached.seen.file} may still be attached to the proxy VM "
                    f"{self._proxy.name}, and the snapshot of {self._machine.name} cannot be "
                    "removed cleanly before it is detached"
                )

    def _refuse_double(self, devices: ProxyDevices, digits: str) -> None:
        """Two disks of one uuid have one name: which of them would be read, nobody could tell."""
        for disk in devices.disks:
            if hex_of(disk.uuid) == digits:
                raise TransportUnusable(
                    f"the proxy VM {self._proxy.name} has a disk with the same uuid already, "
                    f"{disk.file}"
                )
        if name := find_device(self._names(), digits):
            path = self._settings.by_id / name
            raise TransportUnusable(
                f"{path} is there although no such disk is attached; remove what is left of it "
                f"(echo 1 > /sys/block/{path.resolve().name}/device/delete)"
            )

    def _await_device(self, disk: VirtualDisk, digits: str) -> RawImage:
        give_up_at = time.monotonic() + self._settings.appear_s
        while True:
            size = 0
            if name := find_device(self._names(), digits):
                image = RawImage(self._settings.by_id / name)
                if image.size == disk.size and image.is_block_device:
                    return image
                size = image.size
                image.close()
            if time.monotonic() >= give_up_at:
                raise TransportUnusable(self._missing(disk, name, size))
            self._stop.wait(_LOOK_S)

    def _missing(self, disk: VirtualDisk, name: str | None, size: int) -> str:
        limit = f"within {self._settings.appear_s:g} s"
        if name is not None:
            return (
                f"{self._settings.by_id / name} has {size} bytes, and did not become the disk "
                f"{disk.file} of {disk.size} bytes {limit}"
            )
        return (
            f"{disk.file} was attached to the proxy VM {self._proxy.name} and did not appear in "
            f"{self._settings.by_id} {limit}; set disk.EnableUUID = TRUE in the advanced settings "
            "of the proxy VM, and see that transports.hotadd.proxy is the VM this agent runs in"
        )

    def _names(self) -> list[str]:
        folder: Path = self._settings.by_id
        try:
            return os.listdir(folder)
        except OSError as error:
            raise SourceError(f"cannot list {folder}: {error.strerror}") from error


def _digits(disk: VirtualDisk) -> str:
    digits = hex_of(disk.disk_uuid)
    if digits is None:
        raise TransportUnusable(
            f"{disk.file} has no uuid ({disk.disk_uuid!r:.60}): it could not be found again once "
            "it is attached"
        )
    return digits
