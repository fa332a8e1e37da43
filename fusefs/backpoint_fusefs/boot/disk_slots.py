"""Where QEMU puts a machine's disks: on the controllers that the guest knows, or the nearest ones.

Decides replacements, and says them: QEMU has no LSI 53c1030 (VMware's "lsilogic") and no BusLogic,
and the EFI firmware that Debian ships has drivers for SATA, IDE and NVMe, but for none of VMware's
SCSI controllers. What is put in their place is what such a guest also has a driver for, because its
CD drive is there: SATA or IDE. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.boot.hardware import BootDisk, DiskBus, Hardware

_UNITS: Final[dict[DiskBus, int]] = {
    "pvscsi": 64,
    "lsisas1068": 8,
    "sata": 6,
    "ide": 2,
    "nvme": 16,
}
_IDE_CONTROLLERS: Final = 2
_NAMES: Final[dict[DiskBus, str]] = {
    "pvscsi": "pvscsi",
    "lsisas1068": "LSI Logic SAS",
    "sata": "SATA",
    "ide": "IDE",
    "nvme": "NVMe",
    "lsilogic": "LSI Logic parallel",
    "buslogic": "BusLogic",
}


@dataclass(frozen=True)
class Slot:
    """bus: one that QEMU has. controller: counted by bus."""

    bus: DiskBus
    controller: int
    unit: int


def plan_slots(
    hardware: Hardware, forced: DiskBus | None = None
) -> tuple[list[Slot], tuple[str, ...]]:
    """A slot for each of hardware.disks, and what is replaced. forced: all disks sit there."""
    wanted = [_bus(hardware, disk.bus, forced) for disk in hardware.disks]
    slots: dict[int, Slot] = {}
    for number, (disk, bus) in enumerate(zip(hardware.disks, wanted, strict=True)):
        slot = Slot(bus, disk.controller, disk.unit)
        if bus == disk.bus and _is_possible(slot) and slot not in slots.values():
            slots[number] = slot
    taken = set(slots.values())
    for number, bus in enumerate(wanted):
        if number not in slots:
            slots[number] = next(slot for slot in _free(bus) if slot not in taken)
            taken.add(slots[number])
    planned = [slots[number] for number in range(len(wanted))]
    return planned, tuple(_replaced(hardware.disks, planned, forced))


def _is_possible(slot: Slot) -> bool:
    there = slot.bus != "ide" or slot.controller < _IDE_CONTROLLERS
    return there and slot.unit < _UNITS[slot.bus]


def _bus(hardware: Hardware, bus: DiskBus, forced: DiskBus | None) -> DiskBus:
    if forced is not None:
        return forced
    if hardware.secure_boot and bus == "ide":
        return "sata"  # the only chipset with secure boot, Q35, has no IDE
    if hardware.firmware == "efi" and bus not in ("sata", "ide", "nvme"):
        return "sata"
    if bus in ("lsilogic", "buslogic"):
        return "sata" if hardware.has_sata else "ide"
    return bus


def _free(bus: DiskBus) -> Iterator[Slot]:
    """All slots of a bus; what is more than IDE holds goes to SATA."""
    controller = 0
    while True:
        if bus == "ide" and controller == _IDE_CONTROLLERS:
            yield from _free("sata")
        yield from (Slot(bus, controller, unit) for unit in range(_UNITS[bus]))
        controller += 1


def _replaced(
    disks: tuple[BootDisk, ...], slots: list[Slot], forced: DiskBus | None
) -> Iterator[str]:
    told = set()
    for disk, slot in zip(disks, slots, strict=True):
        change = (disk.bus, slot.bus)
        if disk.bus == slot.bus or slot.bus == forced or change in told:
            continue
        told.add(change)
        yield (
            f"disks that were on {_NAMES[disk.bus]} are on {_NAMES[slot.bus]}, for which QEMU and "
            "its firmware have drivers; where the guest has none, try --disk-bus"
        )
