"""The plan of a VM in VMware's own words: a `ConfigSpec` for CreateVM_Task or ImportVApp.

Decides temporary device keys (negative; vCenter gives the real ones) and which of VMware's fields
say what the plan says. Refuses to decide anything else; asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pyVmomi import vim

from backpoint_agent.restoring.description import (
    FLAGS,
    SWITCHES,
    Boot,
    Controller,
    Drive,
    Share,
    Slot,
)
from backpoint_agent.restoring.machine_plan import MachinePlan, Network, PlannedCard, PlannedDisk
from backpoint_repo.errors import ObjectDamaged

_CONTROLLERS: Final = (
    "ParaVirtualSCSIController",
    "VirtualLsiLogicController",
    "VirtualLsiLogicSASController",
    "VirtualBusLogicController",
    "VirtualAHCIController",
    "VirtualNVMEController",
    "VirtualIDEController",
)
_CARDS: Final = (
    "VirtualVmxnet3",
    "VirtualVmxnet2",
    "VirtualVmxnet3Vrdma",
    "VirtualE1000",
    "VirtualE1000e",
    "VirtualPCNet32",
    "VirtualSriovEthernetCard",
)
_IDE_KEY: Final = 200
"""Every VM has its two IDE controllers, by these keys; one that is "added" is the one it has."""
_VIDEO_KEY: Final = 500


def machine_spec(plan: MachinePlan, instance: str, datastores: Mapping[str, str]) -> Any:
    """A ConfigSpec. instance: the VM's new instanceUuid, ours to find it by.

    datastores: by the disks' keys in the point, and "" for the VM's own files. Change tracking is
    off. The order of boot devices needs real keys, see `boot_order`. Raises ObjectDamaged where the
    description names a device that does not exist.
    """
    about = plan.description
    spec = vim.vm.ConfigSpec(
        name=plan.name,
        guestId=about.guest_id,
        instanceUuid=instance,
        numCPUs=about.cpus,
        numCoresPerSocket=about.cores_per_socket or None,
        memoryMB=about.memory_mb,
        cpuAllocation=_allocation(about.cpu_share),
        memoryAllocation=_allocation(about.memory_share),
        firmware=about.boot.firmware,
        bootOptions=_boot_options(about.boot),
        files=vim.vm.FileInfo(vmPathName=f"[{datastores['']}]"),
        changeTrackingEnabled=False,
        deviceChange=list(_devices(plan, datastores)),
        extraConfig=[
            vim.option.OptionValue(key=key, value=value) for key, value in about.extra.items()
        ],
    )
    for field, text in (
        ("version", about.hardware),
        ("uuid", plan.uuid),
        ("annotation", about.annotation),
        ("alternateGuestName", about.alternate_guest_name),
    ):
        if text:
            setattr(spec, field, text)
    _set_flags(spec, about.flags)
    return spec


def boot_order(boot: Boot, keys: Mapping[int, int]) -> Any | None:
    """A ConfigSpec that only sets the order, None where the origin had none.

    keys: real device keys by the origin's; what is not in there is left out.
    """
    options = vim.vm.BootOptions
    order: list[Any] = []
    for device in boot.order:
        key = keys.get(device.key or 0)
        if device.kind == "cdrom":
            order.append(options.BootableCdromDevice())
        elif device.kind == "floppy":
            order.append(options.BootableFloppyDevice())
        elif key is not None and device.kind == "disk":
            order.append(options.BootableDiskDevice(deviceKey=key))
        elif key is not None:
            order.append(options.BootableEthernetDevice(deviceKey=key))
    if not order:
        return None
    # All options again: vCenter may take the unset ones for defaults.
    found = _boot_options(boot)
    found.bootOrder = order
    return vim.vm.ConfigSpec(bootOptions=found)


def _devices(plan: MachinePlan, datastores: Mapping[str, str]) -> Iterator[Any]:
    about = plan.description
    keys = {
        controller.key: _IDE_KEY + controller.bus
        if controller.kind == "VirtualIDEController"
        else -1 - number
        for number, controller in enumerate(about.controllers)
    }
    for controller in about.controllers:
        yield _add(_controller(controller, keys[controller.key]))
    for number, planned in enumerate(plan.disks):
        disk = _disk(planned, -1001 - number, keys, datastores[planned.key])
        yield vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk)
    for number, card in enumerate(plan.cards):
        yield _add(_card(card, -2001 - number))
    for number, drive in enumerate(about.drives):
        if drive.kind == "VirtualFloppy" or drive.slot.controller in keys:
            yield _add(_drive(drive, -3001 - number, keys))
    video = about.video
    if video.memory_kb or video.auto:
        yield _add(
            vim.vm.device.VirtualVideoCard(
                key=_VIDEO_KEY,
                videoRamSizeInKB=video.memory_kb,
                numDisplays=video.displays,
                useAutoDetect=video.auto,
                enable3DSupport=video.three_d,
            )
        )


def _add(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def _class(kind: str, known: tuple[str, ...]) -> Any:
    if kind not in known:
        raise ObjectDamaged(f"machine.json names a device of an unknown kind, {kind!r}")
    return getattr(vim.vm.device, kind)


def _pci(slot: Slot) -> Any | None:
    if slot.pci is None or slot.pci < 0:
        return None
    return vim.vm.device.VirtualDevice.PciBusSlotInfo(pciSlotNumber=slot.pci)


def _controller(controller: Controller, key: int) -> Any:
    device: Any = _class(controller.kind, _CONTROLLERS)(
        key=key, busNumber=controller.bus, slotInfo=_pci(controller.slot)
    )
    if isinstance(device, vim.vm.device.VirtualSCSIController):
        device.sharedBus = controller.sharing
    return device


def _disk(planned: PlannedDisk, key: int, keys: Mapping[int, int], datastore: str) -> Any:
    disk = planned.disk
    controller = keys.get(disk.slot.controller or 0)
    if controller is None or disk.slot.unit is None:
        raise ObjectDamaged(f"machine.json says of {disk.label!r} no controller that exists")
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=f"[{datastore}]",
        diskMode="persistent",
        thinProvisioned=True,
        writeThrough=disk.write_through,
        sharing=disk.sharing,
    )
    return vim.vm.device.VirtualDisk(
        key=key,
        controllerKey=controller,
        unitNumber=disk.slot.unit,
        capacityInBytes=planned.size,
        capacityInKB=-(-planned.size // 1024),
        backing=backing,
    )


def _card(planned: PlannedCard, key: int) -> Any:
    card = planned.card
    device = _class(card.kind, _CARDS)(
        key=key,
        slotInfo=_pci(card.slot),
        wakeOnLanEnabled=card.wake_on_lan,
        backing=_network_backing(planned.network),
        connectable=vim.vm.device.VirtualDevice.ConnectInfo(
            startConnected=planned.connected,
            connected=False,
            allowGuestControl=True,
        ),
    )
    # A fixed address is the only kind that can be asked for.
    if planned.mac:
        device.addressType, device.macAddress = "manual", planned.mac
    else:
        device.addressType = "assigned"
    return device


def _network_backing(network: Network) -> Any:
    ethernet = vim.vm.device.VirtualEthernetCard
    if network.portgroup:
        port = vim.dvs.PortConnection(portgroupKey=network.portgroup, switchUuid=network.switch)
        return ethernet.DistributedVirtualPortBackingInfo(port=port)
    if network.opaque_id:
        return ethernet.OpaqueNetworkBackingInfo(
            opaqueNetworkId=network.opaque_id, opaqueNetworkType=network.opaque_type
        )
    return ethernet.NetworkBackingInfo(deviceName=network.name)


def _drive(drive: Drive, key: int, keys: Mapping[int, int]) -> Any:
    connectable = vim.vm.device.VirtualDevice.ConnectInfo(
        startConnected=False, connected=False, allowGuestControl=True
    )
    if drive.kind == "VirtualFloppy":
        floppy = vim.vm.device.VirtualFloppy
        backing = floppy.RemoteDeviceBackingInfo(deviceName="")
        return floppy(key=key, backing=backing, connectable=connectable)
    cdrom = vim.vm.device.VirtualCdrom
    return cdrom(
        key=key,
        controllerKey=keys[drive.slot.controller or 0],
        unitNumber=drive.slot.unit,
        backing=cdrom.RemotePassthroughBackingInfo(deviceName="", exclusive=False),
        connectable=connectable,
    )


def _allocation(share: Share) -> Any | None:
    if share == Share():
        return None
    shares = None
    if share.level:
        shares = vim.SharesInfo(level=share.level, shares=share.shares or 0)
    return vim.ResourceAllocationInfo(
        reservation=share.reservation, limit=share.limit, shares=shares
    )


def _boot_options(boot: Boot) -> Any:
    return vim.vm.BootOptions(
        bootDelay=boot.delay_ms,
        enterBIOSSetup=boot.enter_setup,
        efiSecureBootEnabled=boot.secure if boot.firmware == "efi" else None,
        bootRetryEnabled=boot.retry,
        bootRetryDelay=boot.retry_delay_ms,
        networkBootProtocol=boot.network_protocol,
    )


def _set_flags(spec: Any, flags: Mapping[str, bool | str]) -> None:
    of_flags = {name: value for name, value in flags.items() if name in FLAGS}
    try:
        if of_flags:
            spec.flags = vim.vm.FlagInfo(**of_flags)
        for name in SWITCHES:
            if name in flags:
                setattr(spec, name, flags[name])
    except TypeError as error:
        raise ObjectDamaged(f"machine.json has a flag of the wrong kind: {error}") from None
