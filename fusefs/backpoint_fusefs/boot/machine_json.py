"""The agent's `machine.json`, read as if it were a .vmx: for points that have no .vmx.

Decides which of VMware's device classes is which setting. Untrusted, like every file of a point;
knows only what booting needs of the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from backpoint_fusefs.boot.vmx_text import VMX_SIZE_MAX, Settings

FILE_NAME: Final = "machine.json"
_DEVICES_MAX: Final = 512
_CONTROLLERS: Final = {
    "ParaVirtualSCSIController": ("scsi", "pvscsi"),
    "VirtualLsiLogicController": ("scsi", "lsilogic"),
    "VirtualLsiLogicSASController": ("scsi", "lsisas1068"),
    "VirtualBusLogicController": ("scsi", "buslogic"),
    "VirtualAHCIController": ("sata", ""),
    "VirtualSATAController": ("sata", ""),
    "VirtualIDEController": ("ide", ""),
    "VirtualNVMEController": ("nvme", ""),
}
_CARDS: Final = {
    "VirtualVmxnet3": "vmxnet3",
    "VirtualE1000": "e1000",
    "VirtualE1000e": "e1000e",
    "VirtualPCNet32": "vlance",
}


def settings_of_description(data: bytes) -> Settings:
    """Never raises; what makes no sense is left out."""
    if len(data) > 4 * VMX_SIZE_MAX:
        return Settings({}, (f"{FILE_NAME} is not read: no real one is that long",))
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        return Settings({}, (f"{FILE_NAME} is no JSON object",))
    return Settings({key.lower(): value for key, value in _settings(loaded)})


def places_of_description(data: bytes) -> dict[str, str]:
    """Where each disk sits ("scsi0:1"), by its key in points."""
    settings = settings_of_description(data)
    ending = ".backpoint-key"
    return {
        key: name.removesuffix(ending)
        for name, key in settings.values.items()
        if name.endswith(ending)
    }


def _settings(machine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    boot = _map(machine.get("boot"))
    yield "firmware", _text(boot.get("firmware"))
    yield "uefi.secureBoot.enabled", "TRUE" if boot.get("secure") is True else "FALSE"
    yield "numvcpus", _text(machine.get("cpus"))
    yield "cpuid.coresPerSocket", _text(machine.get("cores_per_socket"))
    yield "memsize", _text(machine.get("memory_mb"))
    yield "guestOS", _text(machine.get("guest_id"))
    yield "uuid.bios", _text(machine.get("uuid"))
    places = {}
    for controller in _maps(machine.get("controllers")):
        bus, model = _CONTROLLERS.get(_text(controller.get("kind")), ("", ""))
        if bus:
            place = f"{bus}{_text(controller.get('bus'))}"
            places[_text(controller.get("key"))] = place
            yield f"{place}.present", "TRUE"
            yield f"{place}.virtualDev", model
    yield from _drives(machine, places)
    yield from _cards(machine)
    order = [
        places_of_key
        for device in _maps(boot.get("order"))
        if (places_of_key := _place_of_key(machine, places, _text(device.get("key"))))
    ]
    yield "bios.hddOrder", ",".join(order)


def _drives(machine: Mapping[str, Any], places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for disk in _maps(machine.get("disks")):
        if place := _place(disk, places):
            yield f"{place}.present", "TRUE"
            yield f"{place}.deviceType", "disk"
            yield f"{place}.fileName", _text(disk.get("file"))
            yield f"{place}.backpoint-key", f"disk-{_text(disk.get('key'))}"
    for drive in _maps(machine.get("drives")):
        if drive.get("kind") == "VirtualCdrom" and (place := _place(drive, places)):
            yield f"{place}.present", "TRUE"
            yield f"{place}.deviceType", "cdrom-image"


def _cards(machine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for number, card in enumerate(_maps(machine.get("cards"))):
        yield f"ethernet{number}.present", "TRUE"
        yield f"ethernet{number}.virtualDev", _CARDS.get(_text(card.get("kind")), "")
        yield f"ethernet{number}.address", _text(card.get("mac"))


def _place(device: Mapping[str, Any], places: Mapping[str, str]) -> str:
    slot = _map(device.get("slot"))
    controller, unit = places.get(_text(slot.get("controller"))), _text(slot.get("unit"))
    return f"{controller}:{unit}" if controller and unit else ""


def _place_of_key(machine: Mapping[str, Any], places: Mapping[str, str], key: str) -> str:
    found = (disk for disk in _maps(machine.get("disks")) if _text(disk.get("key")) == key)
    return next((_place(disk, places) for disk in found), "")


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[Mapping[str, Any]]:
    items = value[:_DEVICES_MAX] if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value[:1024]
    return str(value) if type(value) is int and abs(value) < 1 << 53 else ""
