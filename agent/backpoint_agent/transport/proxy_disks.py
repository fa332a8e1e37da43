"""What hangs on the proxy VM, where one more disk fits, and what the kernel calls it.

Decides without asking anybody: takes facts and names, gives a place or a name. Only SCSI disks can
be attached while a VM runs, and of the controllers a paravirtual one tells the guest by itself that
a disk has come. Refuses to know how devices are read and changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from backpoint_agent.errors import TransportUnusable

_UNITS: Final = range(16)
"""Of any SCSI controller; newer paravirtual ones have 64, and need them not."""

_NAME: Final = re.compile(r"(?:wwn-0x|scsi-3|scsi-SVMware_Virtual_disk_)([0-9a-f]{32})")
"""As udev names a whole disk; the names of partitions go on behind."""


@dataclass(frozen=True)
class ScsiController:
    """own_unit: the one it sits on itself (7). used: units that have a device."""

    key: int
    bus: int
    paravirtual: bool
    shared: bool
    own_unit: int
    used: frozenset[int]


@dataclass(frozen=True)
class ProxyDisk:
    """A disk that is attached to the proxy, whosoever it is. file: "[datastore] folder/x.vmdk"."""

    key: int
    controller: int
    unit: int
    file: str
    uuid: str


@dataclass(frozen=True)
class ProxyDevices:
    """At the moment of the look."""

    controllers: tuple[ScsiController, ...]
    disks: tuple[ProxyDisk, ...]

    def with_file(self, file: str) -> list[ProxyDisk]:
        """Disks that are exactly this file; not those whose parent it is."""
        return [disk for disk in self.disks if disk.file == file]


@dataclass(frozen=True)
class Slot:
    """A free place: the controller's device key and a unit of it."""

    controller: int
    unit: int


def plan_slot(proxy: str, devices: ProxyDevices) -> Slot:
    """The first free unit, on a paravirtual controller if there is one.

    Raises TransportUnusable, which says what has to be added to the proxy.
    """
    if not devices.controllers:
        raise TransportUnusable(
            f"the proxy VM {proxy} has no SCSI controller, and only SCSI disks can be attached "
            "while it runs; add a paravirtual one"
        )
    unshared = [controller for controller in devices.controllers if not controller.shared]
    for controller in sorted(unshared, key=lambda each: (not each.paravirtual, each.bus)):
        for unit in _UNITS:
            if unit != controller.own_unit and unit not in controller.used:
                return Slot(controller.key, unit)
    raise TransportUnusable(
        f"the proxy VM {proxy} has no free unit on its SCSI controllers; add another one, or let "
        "fewer VMs be backed up at a time"
    )


def hex_of(uuid: str) -> str | None:
    """A backing's uuid ("6000C29d-3f5d-dcad-...") as the kernel writes it; None if it is none."""
    digits = uuid.replace("-", "").replace(" ", "").lower()
    return digits if re.fullmatch(r"[0-9a-f]{32}", digits) else None


def find_device(names: Iterable[str], digits: str) -> str | None:
    """Which of the names in /dev/disk/by-id is this disk, of several the first by name."""
    found = [name for name in names if (match := _NAME.fullmatch(name)) and match[1] == digits]
    return min(found, default=None)
