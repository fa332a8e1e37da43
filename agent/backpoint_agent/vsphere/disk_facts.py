"""The disks among a VM's devices, as facts: place, file, size, and why no snapshot covers one.

Decides what of VMware's many kinds of disks can be backed up through a snapshot. Whatever a server
may answer gives a disk or a reason, never an exception. Refuses to know what a job makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pyVmomi import vim

from backpoint_agent.machine import VirtualDisk
from backpoint_repo.format import MAX_DISK_SIZE

DISKS_MAX: Final = 1024
"""vSphere 8 allows 256 SCSI, 120 SATA and 256 NVMe disks in one VM."""
TEXT_MAX: Final = 4096

_Device = vim.vm.device
_Disk = vim.vm.device.VirtualDisk
_BUSES: Final = (
    (_Device.VirtualSCSIController, "scsi"),
    (_Device.VirtualSATAController, "sata"),
    (_Device.VirtualNVMEController, "nvme"),
    (_Device.VirtualIDEController, "ide"),
)
_COVERED: Final = (
    _Disk.FlatVer1BackingInfo,
    _Disk.FlatVer2BackingInfo,
    _Disk.SparseVer1BackingInfo,
    _Disk.SparseVer2BackingInfo,
    _Disk.SeSparseBackingInfo,
    _Disk.RawDiskMappingVer1BackingInfo,
)
_MODES: Final = {
    "independent_persistent": "it is independent: no snapshot covers it",
    "independent_nonpersistent": "it is independent and nonpersistent: no snapshot covers it",
}
_SHARED_BUS: Final = {"virtualSharing", "physicalSharing"}


def read_disks(devices: Iterable[Any] | None) -> tuple[VirtualDisk, ...]:
    """All disks of `hardware.device`, in its order; more than DISKS_MAX are cut off there."""
    known = [device for device in devices or () if device is not None]
    controllers = {device.key: device for device in known if bus_of(device) is not None}
    disks = [device for device in known if isinstance(device, _Disk)][:DISKS_MAX]
    return tuple(_once_each([_read_disk(disk, controllers) for disk in disks]))


def bus_of(device: Any) -> str | None:
    """ "scsi", "sata", "nvme" or "ide" where the device is a controller of disks."""
    return next((bus for kind, bus in _BUSES if isinstance(device, kind)), None)


def text_of(value: Any) -> str:
    """A server's text, of a length that can be kept."""
    return "" if value is None else str(value)[:TEXT_MAX]


def _read_disk(disk: Any, controllers: Mapping[int, Any]) -> VirtualDisk:
    backing = disk.backing
    controller = controllers.get(disk.controllerKey)
    size = _size(disk)
    return VirtualDisk(
        device_key=int(disk.key or 0),
        slot=_slot(disk, controller),
        label=text_of(disk.deviceInfo.label) if disk.deviceInfo else "",
        file=text_of(getattr(backing, "fileName", None)),
        size=max(0, size),
        disk_uuid=text_of(getattr(backing, "uuid", None)),
        object_id=text_of(disk.diskObjectId),
        mode=text_of(getattr(backing, "diskMode", None)),
        change_id=text_of(getattr(backing, "changeId", None)) or None,
        has_parent=getattr(backing, "parent", None) is not None,
        unfit=_unfit(backing, controller) or _impossible(size),
    )


def _once_each(disks: Sequence[VirtualDisk]) -> list[VirtualDisk]:
    """Points name a disk by its device key: two with the same cannot be told apart."""
    times = Counter(disk.device_key for disk in disks)
    return [
        replace(disk, unfit=f"another disk has the same device key, {disk.device_key}")
        if times[disk.device_key] > 1
        else disk
        for disk in disks
    ]


def _slot(disk: Any, controller: Any) -> str:
    unit = "?" if disk.unitNumber is None else disk.unitNumber
    if controller is None:
        return f"controller{disk.controllerKey}:{unit}"
    return f"{bus_of(controller)}{controller.busNumber}:{unit}"


def _size(disk: Any) -> int:
    if disk.capacityInBytes:
        return int(disk.capacityInBytes)
    return int(disk.capacityInKB or 0) * 1024


def _impossible(size: int) -> str | None:
    if 0 < size <= MAX_DISK_SIZE:
        return None
    return f"vCenter gives it the impossible size of {size} bytes"


def _unfit(backing: Any, controller: Any) -> str | None:
    if backing is None:
        return "vCenter does not tell what it consists of"
    if not isinstance(backing, _COVERED):
        return _strange(backing)
    if getattr(backing, "compatibilityMode", None) == "physicalMode":
        return "it is a raw device in physical mode (RDM): no snapshot covers it"
    mode = text_of(getattr(backing, "diskMode", None))
    if mode != "persistent":
        return _MODES.get(mode, f"its mode is {mode or 'not told'}: no snapshot covers it")
    if getattr(backing, "sharing", None) == "sharingMultiWriter":
        return "several VMs write it (multi-writer): no snapshot covers it"
    if getattr(controller, "sharedBus", None) in _SHARED_BUS:
        return f"its bus is shared between VMs ({controller.sharedBus}): no snapshot covers it"
    if getattr(backing, "keyId", None) is not None:
        return "it is encrypted, and the agent has no key to it"
    return None


def _strange(backing: Any) -> str:
    kind = type(backing).__name__.rpartition("VirtualDisk.")[2].removesuffix("BackingInfo")
    if isinstance(backing, _Disk.LocalPMemBackingInfo):
        return "it lies in its host's persistent memory: no snapshot covers it"
    if isinstance(backing, _Disk.RawDiskVer2BackingInfo):
        return "it is a device of its host: no snapshot covers it"
    return f"its kind is not known ({kind[:100]})"
