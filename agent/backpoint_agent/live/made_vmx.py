"""A .vmx out of `machine.json`, for points that keep no .vmx of their own. Pure.

Decides how what vCenter told of a VM is said in a .vmx: its hardware and its advanced settings. The
disks are put in by `vmx_plan.py`, as with a stored one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from backpoint_agent.live.vmx_text import Vmx
from backpoint_agent.restoring.description import MachineDescription, NetworkCard

_SCSI: Final = {
    "ParaVirtualSCSIController": "pvscsi",
    "VirtualLsiLogicController": "lsilogic",
    "VirtualLsiLogicSASController": "lsisas1068",
    "VirtualBusLogicController": "buslogic",
}
_OTHER_BUSES: Final = {
    "VirtualAHCIController": "sata",
    "VirtualNVMEController": "nvme",
}
_CARDS: Final = {
    "VirtualVmxnet3": "vmxnet3",
    "VirtualVmxnet2": "vmxnet",
    "VirtualE1000": "e1000",
    "VirtualE1000e": "e1000e",
    "VirtualPCNet32": "vlance",
}
_BRIDGES: Final = range(4, 8)
"""PCIe ports, without which pvscsi and vmxnet3 have no place."""
_OLDEST: Final = 8


def make_vmx(description: MachineDescription) -> Vmx:
    """Without disks, without a name of its own."""
    vmx = Vmx({"config.version": "8", "virtualHW.version": _hardware(description.hardware)})
    for key, value in (*_board(description), *_buses(description), *_drives(description)):
        vmx.set(key, value)
    for number, card in enumerate(description.cards):
        for key, value in _card(card):
            vmx.set(f"ethernet{number}.{key}", value)
    for key, value in description.extra.items():
        # What the configuration itself says is surer than an advanced setting of the same name.
        if key not in vmx and re.fullmatch(r"[A-Za-z0-9_][\w.:\-]{0,255}", key):
            vmx.set(key, value)
    return vmx


def _board(description: MachineDescription) -> Iterator[tuple[str, str]]:
    yield "guestOS", _guest(description.guest_id)
    yield "memSize", str(description.memory_mb)
    yield "numvcpus", str(description.cpus)
    yield "cpuid.coresPerSocket", str(max(description.cores_per_socket, 1))
    if description.uuid:
        yield "uuid.bios", _spaced(description.uuid)
    if description.boot.firmware == "efi":
        yield "firmware", "efi"
        yield "uefi.secureBoot.enabled", "TRUE" if description.boot.secure else "FALSE"
    yield "pciBridge0.present", "TRUE"
    for bridge in _BRIDGES:
        yield f"pciBridge{bridge}.present", "TRUE"
        yield f"pciBridge{bridge}.virtualDev", "pcieRootPort"
        yield f"pciBridge{bridge}.functions", "8"
    yield "vmci0.present", "TRUE"
    yield "hpet0.present", "TRUE"
    yield "svga.present", "TRUE"


def _buses(description: MachineDescription) -> Iterator[tuple[str, str]]:
    for controller in description.controllers:
        if device := _SCSI.get(controller.kind):
            yield f"scsi{controller.bus}.present", "TRUE"
            yield f"scsi{controller.bus}.virtualDev", device
        elif bus := _OTHER_BUSES.get(controller.kind):
            yield f"{bus}{controller.bus}.present", "TRUE"


def _drives(description: MachineDescription) -> Iterator[tuple[str, str]]:
    """A CD drive where it was: an installed guest may name it."""
    bus_of = {c.key: f"{_OTHER_BUSES.get(c.kind, 'ide')}{c.bus}" for c in description.controllers}
    for drive in description.drives:
        bus = bus_of.get(drive.slot.controller or 0)
        if drive.kind == "VirtualCdrom" and bus and drive.slot.unit is not None:
            yield f"{bus}:{drive.slot.unit}.present", "TRUE"
            yield f"{bus}:{drive.slot.unit}.deviceType", "atapi-cdrom"


def _card(card: NetworkCard) -> Iterator[tuple[str, str]]:
    yield "present", "TRUE"
    yield "virtualDev", _CARDS.get(card.kind, "vmxnet3")
    yield "networkName", card.network
    yield "startConnected", "TRUE" if card.start_connected else "FALSE"
    yield "wakeOnPcktRcv", "TRUE" if card.wake_on_lan else "FALSE"
    if card.portgroup and card.switch:
        yield "dvs.switchId", _spaced(card.switch)
        yield "dvs.portgroupId", card.portgroup
    if card.mac:
        # Outside VMware's own range an address cannot be told as fixed, but it can be checked off.
        yield "addressType", "static"
        yield "address", card.mac
        yield "checkMACAddress", "FALSE"


def _hardware(version: str) -> str:
    found = re.fullmatch(r"vmx-0*(\d{1,3})", version)
    return found[1] if found and int(found[1]) >= _OLDEST else "13"


def _guest(guest_id: str) -> str:
    """ "windows9srv-64" of "windows9Server64Guest", "debian10-64" of "debian10_64Guest"."""
    name = guest_id.removesuffix("Guest").replace("Server", "srv")
    return re.sub(r"_?64$", "-64", name).lower() or "other"


def _spaced(uuid: str) -> str:
    """As a .vmx has it: "42 1e 4f 52 8a 1b 7c 3d-9e 6f 2b 4a 6c 8d 0e 1f"."""
    digits = re.sub(r"[^0-9a-fA-F]", "", uuid).lower()[:32]
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    return f"{' '.join(pairs[:8])}-{' '.join(pairs[8:])}"
