"""A VM's configuration out of vCenter's `ConfigInfo`, as `machine.json` will keep it.

Decides what belongs to the machine and what only to this instance of it (swap file, tools state,
tracking files), and names aloud what no restore can bring back. Refuses to know how a VM is built
again. Everything that speaks pyvmomi about describing is in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import ValidationError
from pyVmomi import vim

from backpoint_agent.errors import TaskFailed
from backpoint_agent.restoring.advanced_settings import keep_settings
from backpoint_agent.restoring.description import (
    FLAGS,
    SWITCHES,
    Boot,
    BootDevice,
    Controller,
    DescribedDisk,
    Drive,
    MachineDescription,
    NetworkCard,
    Share,
    Slot,
    Video,
)

_TEXT_MAX: Final = 1 << 16

_BUSES: Final = (
    ("VirtualSCSIController", "scsi"),
    ("VirtualSATAController", "sata"),
    ("VirtualNVMEController", "nvme"),
    ("VirtualIDEController", "ide"),
)

_EVERY_VM_HAS: Final = (
    "VirtualPCIController",
    "VirtualPS2Controller",
    "VirtualSIOController",
    "VirtualKeyboard",
    "VirtualPointingDevice",
    "VirtualVideoCard",
    "VirtualVMCIDevice",
)


def describe_hardware(
    config: vim.vm.ConfigInfo, networks: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All that is needed to build the VM again, JSON-able, for `encode_description`.

    networks: names of distributed portgroups by their key, where the caller knows them; without it
    a card on one is known by the key alone. Raises TaskFailed where vCenter's answer describes no
    VM, as that of a VM whose host is gone.
    """
    try:
        return _describe(config, networks or {}).model_dump(mode="json")
    except (ValidationError, AttributeError, TypeError) as error:
        # pyvmomi gives None for whatever a server leaves out.
        raise TaskFailed(f"vCenter's configuration of the VM makes no sense: {error}") from error


def _describe(config: vim.vm.ConfigInfo, networks: Mapping[str, str]) -> MachineDescription:
    devices = list(config.hardware.device)
    places = _places(devices)
    left_out = list(_left_out(config, devices))
    settings = [(str(option.key), str(option.value)) for option in config.extraConfig or []]
    extra, dropped = keep_settings(settings)
    if dropped:
        left_out.append(f"{dropped} advanced settings: too long or too many")
    return MachineDescription(
        name=_text(config.name),
        uuid=_text(config.uuid),
        instance=_text(config.instanceUuid),
        guest_id=_text(config.guestId) or "otherGuest",
        alternate_guest_name=_text(config.alternateGuestName),
        hardware=_text(config.version),
        annotation=_text(config.annotation),
        vmx=_text(config.files.vmPathName if config.files else None),
        cpus=config.hardware.numCPU,
        cores_per_socket=config.hardware.numCoresPerSocket or 1,
        memory_mb=config.hardware.memoryMB,
        cpu_share=_share(config.cpuAllocation),
        memory_share=_share(config.memoryAllocation),
        flags=_flags(config),
        boot=_boot(config),
        controllers=tuple(_controller(device) for device in devices if _bus_of(device)),
        disks=tuple(_disks(devices, places)),
        cards=tuple(_cards(devices, networks)),
        drives=tuple(_drives(devices)),
        video=_video(devices),
        extra=extra,
        left_out=tuple(left_out),
    )


def _is(device: Any, *names: str) -> bool:
    """Whether it is of one of VMware's device classes, or of one derived from them."""
    return any(isinstance(device, getattr(vim.vm.device, name)) for name in names)


def _kind(device: Any) -> str:
    return type(device).__name__.rpartition(".")[2]


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_TEXT_MAX]


def _slot(device: Any) -> Slot:
    pci = getattr(device.slotInfo, "pciSlotNumber", None)
    return Slot(controller=device.controllerKey, unit=device.unitNumber, pci=pci)


def _bus_of(device: Any) -> str | None:
    return next((bus for name, bus in _BUSES if _is(device, name)), None)


def _places(devices: Sequence[Any]) -> dict[int, str]:
    """By controller key: "scsi0"."""
    return {
        device.key: f"{bus}{device.busNumber}" for device in devices if (bus := _bus_of(device))
    }


def _controller(device: Any) -> Controller:
    return Controller(
        key=device.key,
        kind=_kind(device),
        bus=device.busNumber,
        sharing=_text(getattr(device, "sharedBus", None)) or "noSharing",
        slot=_slot(device),
    )


def _disks(devices: Sequence[Any], places: Mapping[int, str]) -> Iterator[DescribedDisk]:
    for device in devices:
        if not _is(device, "VirtualDisk"):
            continue
        backing = device.backing
        bus = places.get(device.controllerKey, "")
        yield DescribedDisk(
            key=device.key,
            place=f"{bus}:{device.unitNumber}" if bus else "",
            label=_text(device.deviceInfo.label if device.deviceInfo else None),
            size=device.capacityInBytes or (device.capacityInKB or 0) * 1024,
            file=_text(getattr(backing, "fileName", None)),
            slot=_slot(device),
            mode=_text(getattr(backing, "diskMode", None)) or "persistent",
            thin=getattr(backing, "thinProvisioned", None),
            write_through=getattr(backing, "writeThrough", None),
            sharing=_text(getattr(backing, "sharing", None)) or None,
            uuid=_text(getattr(backing, "uuid", None)),
        )


def _cards(devices: Sequence[Any], networks: Mapping[str, str]) -> Iterator[NetworkCard]:
    for device in devices:
        if not _is(device, "VirtualEthernetCard"):
            continue
        backing = device.backing
        port = getattr(backing, "port", None)
        portgroup = _text(getattr(port, "portgroupKey", None))
        connect = device.connectable
        yield NetworkCard(
            key=device.key,
            kind=_kind(device),
            label=_text(device.deviceInfo.label if device.deviceInfo else None),
            network=_text(getattr(backing, "deviceName", None)) or networks.get(portgroup, ""),
            portgroup=portgroup,
            switch=_text(getattr(port, "switchUuid", None)),
            mac=_text(device.macAddress),
            mac_type=_text(device.addressType),
            start_connected=bool(connect.startConnected) if connect else True,
            wake_on_lan=device.wakeOnLanEnabled is not False,
            slot=_slot(device),
        )


def _drives(devices: Sequence[Any]) -> Iterator[Drive]:
    for device in devices:
        kind: Literal["VirtualCdrom", "VirtualFloppy"] | None = (
            "VirtualCdrom"
            if _is(device, "VirtualCdrom")
            else "VirtualFloppy"
            if _is(device, "VirtualFloppy")
            else None
        )
        if kind:
            yield Drive(key=device.key, kind=kind, slot=_slot(device))


def _video(devices: Sequence[Any]) -> Video:
    for device in devices:
        if _is(device, "VirtualVideoCard"):
            return Video(
                memory_kb=device.videoRamSizeInKB,
                displays=device.numDisplays,
                auto=device.useAutoDetect,
                three_d=device.enable3DSupport,
            )
    return Video()


def _share(allocation: Any) -> Share:
    if allocation is None:
        return Share()
    shares = allocation.shares
    return Share(
        reservation=allocation.reservation,
        limit=allocation.limit,
        level=_text(shares.level) if shares else None,
        shares=shares.shares if shares else None,
    )


def _flags(config: vim.vm.ConfigInfo) -> dict[str, bool | str]:
    found = [(name, getattr(config.flags, name, None)) for name in FLAGS]
    found += [(name, getattr(config, name, None)) for name in SWITCHES]
    return {
        name: value if isinstance(value, bool) else _text(value)
        for name, value in found
        if value is not None
    }


def _boot(config: vim.vm.ConfigInfo) -> Boot:
    firmware = _text(config.firmware) or "bios"
    options = config.bootOptions
    if options is None:
        return Boot(firmware=firmware)
    return Boot(
        firmware=firmware,
        secure=bool(options.efiSecureBootEnabled),
        delay_ms=options.bootDelay,
        enter_setup=options.enterBIOSSetup,
        retry=options.bootRetryEnabled,
        retry_delay_ms=options.bootRetryDelay,
        network_protocol=_text(options.networkBootProtocol) or None,
        order=tuple(map(_boot_device, options.bootOrder or [])),
    )


def _boot_device(device: Any) -> BootDevice:
    bootable = vim.vm.BootOptions
    if isinstance(device, bootable.BootableDiskDevice):
        return BootDevice(kind="disk", key=device.deviceKey)
    if isinstance(device, bootable.BootableEthernetDevice):
        return BootDevice(kind="network", key=device.deviceKey)
    if isinstance(device, bootable.BootableFloppyDevice):
        return BootDevice(kind="floppy")
    return BootDevice(kind="cdrom")


def _left_out(config: vim.vm.ConfigInfo, devices: Sequence[Any]) -> Iterator[str]:
    restored = ("VirtualDisk", "VirtualEthernetCard", "VirtualCdrom", "VirtualFloppy")
    for device in devices:
        if _bus_of(device) or _is(device, *restored, *_EVERY_VM_HAS):
            continue
        label = _text(device.deviceInfo.label if device.deviceInfo else None) or "without a label"
        yield f"{_kind(device)} ({label})"
    if config.keyId is not None:
        yield "encryption of the VM's home"
    if config.vAppConfig is not None:
        yield "vApp options"
    if config.managedBy is not None:
        yield f"management by {_text(config.managedBy.extensionKey)}"
