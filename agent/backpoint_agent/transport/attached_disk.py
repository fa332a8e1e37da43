"""A frozen disk attached to the proxy VM: reconfigured in, found again, reconfigured out.

Decides that the file is only ever opened nonpersistent (what the proxy's kernel writes to it is
thrown away), that a removal takes the device which was seen to come and never deletes its file, and
that it is over only when a look shows so. The ledger knows before anything is asked for. Refuses to
know block devices.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pyVmomi import vim

from backpoint_agent.errors import (
    Busy,
    ObjectGone,
    PermissionMissing,
    TaskFailed,
    TransportUnusable,
)
from backpoint_agent.ledger import Effect, Ledger
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.proxy_disks import (
    ProxyDevices,
    ProxyDisk,
    ScsiController,
    Slot,
    plan_slot,
)
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import BackpointError

RECONFIGURE_LIMIT_S: Final = 300.0
_TRIES: Final = 6
_PAUSE_S: Final = 2.0
"""Between tries, times the number of the try: another agent may be reconfiguring the proxy."""
_DEVICES_MAX: Final = 4096
_REFUSALS: Final = (TaskFailed, PermissionMissing, Busy, ObjectGone, TransportUnusable)
"""Answers: what was asked for did not happen. Of anything else that is unknown."""


@dataclass(frozen=True)
class AttachedDisk:
    """seen: as the proxy had it right after it came."""

    effect: Effect
    seen: ProxyDisk


class Proxy:
    """The VM that this agent runs in. Thread-safe: one change at a time, of this process."""

    def __init__(self, vcenter: VCenter, ledger: Ledger, moref: str, name: str) -> None:
        self._vcenter = vcenter
        self._ledger = ledger
        self._vm = vcenter.object("VirtualMachine", moref)
        self._change = threading.Lock()
        self.moref = moref
        self.name = name

    def devices(self) -> ProxyDevices:
        """What it has now. Raises VSphereError."""
        return read_devices(self._devices())

    def attach(
        self,
        machine: Machine,
        disk: VirtualDisk,
        stop: Stop,
        *,
        check: Callable[[ProxyDevices], None],
    ) -> AttachedDisk:
        """Attach the frozen file. check: a last look at what is there; raises what speaks against.

        Raises TransportUnusable where vCenter refuses, VSphereError, Stopped. Then it is detached
        again, or open in the ledger.
        """
        with self._change:
            before = self.devices()
            if before.with_file(disk.file):
                raise TransportUnusable(f"{disk.file} is attached to the proxy VM {self.name}")
            check(before)
            facts = {"proxy": self.moref, "file": disk.file}
            effect = self._ledger.intend(
                "hotadd", self._vcenter.uuid, machine.moref, machine.name, facts
            )
            try:
                slot = self._add(disk, stop)
                seen = self._seen(disk.file, slot)
            except BaseException as error:
                self._take_back(effect, disk.file, certain=isinstance(error, _REFUSALS))
                if isinstance(error, _REFUSALS):
                    raise TransportUnusable(str(error)) from error
                raise
            known = {"device_key": str(seen.key), "file": seen.file}
            return AttachedDisk(self._ledger.learned(effect, known), seen)

    def detach(self, attached: AttachedDisk) -> None:
        """Take it out, and see that it is gone. Harmless when it is. Raises VSphereError."""
        with self._change:
            self._remove(attached.seen)
            self._ledger.undone(attached.effect, "detached")

    def _add(self, disk: VirtualDisk, stop: Stop) -> Slot:
        """Tried again where somebody else reconfigures the proxy, or took the place meanwhile."""
        what = f"attaching {disk.file} to the proxy VM {self.name}"
        slot = plan_slot(self.name, self.devices())
        for number in range(1, _TRIES + 1):
            try:
                self._reconfigure(what, _addition(disk, slot), stop)
            except (Busy, TaskFailed) as error:
                planned = plan_slot(self.name, self.devices())
                if number == _TRIES or not (isinstance(error, Busy) or planned != slot):
                    raise
                slot = planned
                stop.wait(_PAUSE_S * number)
            else:
                break
        return slot

    def _seen(self, file: str, slot: Slot) -> ProxyDisk:
        """The device that came. Its file may be called otherwise, where the host keeps a log of
        what is written; then the ledger has that name."""
        for disk in self.devices().disks:
            if (disk.controller, disk.unit) == (slot.controller, slot.unit):
                return disk
        raise TaskFailed(f"{file} was attached to the proxy VM {self.name}, and is not there")

    def _take_back(self, effect: Effect, file: str, *, certain: bool) -> None:
        """After a failure. certain: what is not there now does not come later."""
        try:
            found = self.devices().with_file(file)
            for disk in found:
                self._remove(disk)
            if found or certain:
                self._ledger.undone(effect, "detached" if found else "was refused")
        except BackpointError:
            # It stays in the ledger, and the failure that led here is the one to tell.
            return

    def _remove(self, seen: ProxyDisk) -> None:
        what = f"detaching {seen.file} from the proxy VM {self.name}"
        for number in range(1, _TRIES + 1):
            device = self._device_of(seen)
            if device is None:
                return
            try:
                self._reconfigure(what, _removal(device), None)
            except Busy:
                if number == _TRIES:
                    raise
                Stop().wait(_PAUSE_S * number)
        if self._device_of(seen) is not None:
            raise TaskFailed(f"{what}: done, and it is still there")

    def _device_of(self, seen: ProxyDisk) -> Any:
        """The device that was seen to come, None where it is gone.

        Raises TaskFailed where there is one that may be it and may not.
        """
        devices = self._devices()
        disks = read_devices(devices).disks
        if seen in disks:
            return next(device for device in devices if device.key == seen.key)
        for disk in disks:
            same_place = (disk.controller, disk.unit) == (seen.controller, seen.unit)
            if disk.file == seen.file or (same_place and disk.uuid == seen.uuid):
                raise TaskFailed(
                    f"the proxy VM {self.name} has {disk.file} as device {disk.key}, and "
                    f"{seen.file} was attached as {seen.key}; which disk it is has to be seen to"
                )
        return None

    def _devices(self) -> list[Any]:
        what = f"reading the devices of the proxy VM {self.name}"
        devices = self._vcenter.call(what, lambda: self._vm.config.hardware.device)
        return list(devices or ())[:_DEVICES_MAX]

    def _reconfigure(self, what: str, change: Any, stop: Stop | None) -> None:
        run_task(
            self._vcenter,
            what,
            lambda: self._vm.ReconfigVM_Task(spec=vim.vm.ConfigSpec(deviceChange=[change])),
            limit_s=RECONFIGURE_LIMIT_S,
            stop=stop,
        )


def find_proxy(vcenter: VCenter, ledger: Ledger, instance: str) -> Proxy:
    """The VM with this instanceUuid. Raises TransportUnusable, which says what to put right."""
    index = vcenter.content.searchIndex
    try:
        found = vcenter.call(
            "looking for the proxy VM",
            lambda: index.FindByUuid(uuid=instance, vmSearch=True, instanceUuid=True),
        )
    except TaskFailed as error:  # a malformed uuid is a fault
        raise TransportUnusable(str(error)) from error
    if found is None:
        raise TransportUnusable(
            f"vCenter {vcenter.name} has no VM with the instanceUuid {instance}; transports.hotadd."
            "proxy must name the VM that this agent runs in"
        )
    name = str(vcenter.call("reading the proxy VM's name", lambda: found.name))
    power = str(vcenter.call("reading the proxy VM's state", lambda: found.runtime.powerState))
    if power != "poweredOn":
        raise TransportUnusable(
            f"the proxy VM {name} is {power}, so this agent does not run in it; correct "
            "transports.hotadd.proxy"
        )
    return Proxy(vcenter, ledger, str(found._moId), name)


def read_devices(devices: list[Any]) -> ProxyDevices:
    """SCSI controllers and disks among a VM's devices."""
    kinds = vim.vm.device
    used: dict[int, set[int]] = {}
    for device in devices:
        if device.controllerKey is not None and device.unitNumber is not None:
            used.setdefault(int(device.controllerKey), set()).add(int(device.unitNumber))
    controllers = [
        ScsiController(
            key=int(device.key),
            bus=int(device.busNumber or 0),
            paravirtual=isinstance(device, kinds.ParaVirtualSCSIController),
            shared=str(device.sharedBus or "noSharing") != "noSharing",
            own_unit=7 if device.scsiCtlrUnitNumber is None else int(device.scsiCtlrUnitNumber),
            used=frozenset(used.get(int(device.key), ())),
        )
        for device in devices
        if isinstance(device, kinds.VirtualSCSIController)
    ]
    disks = [
        ProxyDisk(
            key=int(device.key),
            controller=int(device.controllerKey or 0),
            unit=-1 if device.unitNumber is None else int(device.unitNumber),
            file=str(getattr(device.backing, "fileName", None) or ""),
            uuid=str(getattr(device.backing, "uuid", None) or ""),
        )
        for device in devices
        if isinstance(device, kinds.VirtualDisk)
    ]
    return ProxyDevices(tuple(controllers), tuple(disks))


def _addition(disk: VirtualDisk, slot: Slot) -> Any:
    kinds = vim.vm.device
    backing = kinds.VirtualDisk.FlatVer2BackingInfo(
        fileName=disk.file, diskMode="independent_nonpersistent"
    )
    device = kinds.VirtualDisk(
        key=-1,
        controllerKey=slot.controller,
        unitNumber=slot.unit,
        capacityInKB=disk.size // 1024,
        backing=backing,
    )
    return kinds.VirtualDeviceSpec(operation="add", device=device)


def _removal(device: Any) -> Any:
    kinds = vim.vm.device
    # No fileOperation: the file is the VM's, and stays.
    return kinds.VirtualDeviceSpec(operation="remove", device=device)
