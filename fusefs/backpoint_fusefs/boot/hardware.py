"""The virtual hardware that a VM had, as its .vmx tells, in terms of what boots it.

Decides what of a .vmx matters for booting and what stands for it where it says nothing. Pure; a
.vmx is untrusted text. How QEMU is told is for `qemu_command.py`.

Beyond the first contract: `hardware_of` takes the point's disks as `PointDisk`s, because a .vmx
names files and a point counts its disks, and the agent's machine.json for points without a .vmx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from backpoint_fusefs.boot.disk_places import NamedDisk, PointDisk, match_disks
from backpoint_fusefs.boot.machine_json import settings_of_description
from backpoint_fusefs.boot.vmx_text import Settings, parse_vmx

Firmware = Literal["bios", "efi"]
DiskBus = Literal["pvscsi", "lsilogic", "lsisas1068", "buslogic", "sata", "ide", "nvme"]
NicModel = Literal["vmxnet3", "e1000", "e1000e", "pcnet32"]

MEMORY_MIN: Final = 16
_MEMORY_MAX: Final = 24 << 20
"""MiB: what VMware allows, 24 TiB."""
_CORES_MAX: Final = 768
_UNITS: Final = {"scsi": 64, "sata": 30, "ide": 2, "nvme": 64}
_CONTROLLERS: Final = {"scsi": 4, "sata": 4, "ide": 2, "nvme": 4}
_NICS_MAX: Final = 10
_DEVICE: Final = re.compile(r"(scsi|sata|ide|nvme)(\d):(\d{1,2})\.filename")
_MAC: Final = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_SCSI: Final[dict[str, DiskBus]] = {
    "pvscsi": "pvscsi",
    "lsilogic": "lsilogic",
    "lsisas1068": "lsisas1068",
    "buslogic": "buslogic",
}
_NICS: Final[dict[str, NicModel]] = {
    "vmxnet3": "vmxnet3",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "vlance": "pcnet32",
    "pcnet32": "pcnet32",
    # "flexible", and VMware's own that came before vmxnet3: both begin as a vlance.
    "flexible": "pcnet32",
    "vmxnet": "pcnet32",
}


@dataclass(frozen=True)
class BootDisk:
    """bus and unit: where the guest found it. file: the descriptor in the VM's folder. number: of
    the disk in the point."""

    bus: DiskBus
    controller: int
    unit: int
    file: str
    number: int = 0


@dataclass(frozen=True)
class Nic:
    """address: MAC, empty where none is given."""

    model: NicModel
    address: str = ""


@dataclass(frozen=True)
class Hardware:
    """memory: MiB. disks: in boot order. has_sata: the guest used a SATA controller, and no IDE.
    local_time: its clock is set to local time. uuid: as SMBIOS shows it. notes: what was not
    understood or is replaced by something else, for the user."""

    firmware: Firmware = "bios"
    secure_boot: bool = False
    cores: int = 1
    cores_per_socket: int = 1
    memory: int = 1024
    disks: tuple[BootDisk, ...] = ()
    nics: tuple[Nic, ...] = ()
    nvram: str = ""
    has_sata: bool = False
    local_time: bool = False
    uuid: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)


def hardware_of(
    vmx: bytes | None, disks: Sequence[PointDisk], description: bytes | None = None
) -> Hardware:
    """disks: all that the point has; those that the .vmx does not name come last, on pvscsi.

    None for vmx: there is no .vmx; description: the agent's machine.json, read in its place. Never
    raises for what they say.
    """
    if vmx is not None:
        settings = parse_vmx(vmx)
    elif description is not None:
        settings = settings_of_description(description)
    else:
        settings = Settings({}, ("the point has no .vmx: 1 core, 1 GiB and BIOS are assumed",))
    firmware: Firmware = "efi" if settings.text("firmware").lower() == "efi" else "bios"
    cores = settings.number("numvcpus", 1, _CORES_MAX) or 1
    per_socket = settings.number("cpuid.coresPerSocket", 1, _CORES_MAX) or 1
    boot_disks, guesses = _disks(settings, disks)
    return Hardware(
        firmware,
        firmware == "efi" and settings.switch("uefi.secureBoot.enabled") is True,
        cores,
        per_socket if cores % per_socket == 0 else 1,
        settings.number("memsize", MEMORY_MIN, _MEMORY_MAX) or 1024,
        boot_disks,
        tuple(_nics(settings)),
        settings.text("nvram")[:255],
        _has_sata(settings),
        settings.text("guestOS").lower().startswith("win"),
        _uuid(settings.text("uuid.bios")),
        (*settings.notes, *guesses, *_shortfalls(settings, firmware)),
    )


def _disks(
    settings: Settings, disks: Sequence[PointDisk]
) -> tuple[tuple[BootDisk, ...], tuple[str, ...]]:
    named = _named_disks(settings)
    matched, notes = match_disks(named, disks)
    order = [place.strip().lower() for place in settings.text("bios.hddOrder").split(",")]
    free_unit = 0
    found = []
    for disk in disks:
        file = f"disk{disk.number}.vmdk"
        slot = matched.get(disk.number)
        if slot is not None:
            bus = _bus(settings, slot)
            boot = BootDisk(bus, slot.controller, slot.unit, file, disk.number)
            rank = order.index(slot.place) if slot.place in order else len(order)
        else:
            further, unit = divmod(free_unit, _UNITS["scsi"])
            boot = BootDisk("pvscsi", _CONTROLLERS["scsi"] + further, unit, file, disk.number)
            rank, free_unit = len(order) + 1, free_unit + 1
        found.append((rank, disk.number, boot))
    if named and len(matched) < len(disks):
        notes = (*notes, "disks that the .vmx does not name are on pvscsi")
    return tuple(boot for _, _, boot in sorted(found, key=lambda item: item[:2])), notes


def _named_disks(settings: Settings) -> list[NamedDisk]:
    named = []
    for key in settings.values:
        if (found := _DEVICE.fullmatch(key)) is None:
            continue
        disk = NamedDisk(found[1], int(found[2]), int(found[3]), _base_name(settings.text(key)))
        allowed = disk.controller < _CONTROLLERS[disk.prefix] and disk.unit < _UNITS[disk.prefix]
        if allowed and _is_disk(settings, disk):
            named.append(disk)
    buses = list(_UNITS)
    return sorted(named, key=lambda d: (buses.index(d.prefix), d.controller, d.unit))


def _is_disk(settings: Settings, disk: NamedDisk) -> bool:
    if settings.switch(f"{disk.place}.present") is False:
        return False
    kind = settings.text(f"{disk.place}.deviceType").lower()
    return "disk" in kind or (not kind and disk.name.lower().endswith(".vmdk"))


def _bus(settings: Settings, disk: NamedDisk) -> DiskBus:
    match disk.prefix:
        case "sata":
            return "sata"
        case "ide":
            return "ide"
        case "nvme":
            return "nvme"
    model = settings.text(f"scsi{disk.controller}.virtualDev").lower()
    return _SCSI.get(model, "lsilogic")


def _has_sata(settings: Settings) -> bool:
    used = [
        prefix
        for prefix in ("sata", "ide")
        for controller in range(_CONTROLLERS[prefix])
        for unit in range(_UNITS[prefix])
        if settings.switch(f"{prefix}{controller}:{unit}.present")
    ]
    return "sata" in used and "ide" not in used


def _nics(settings: Settings) -> Iterator[Nic]:
    for number in range(_NICS_MAX):
        card = f"ethernet{number}"
        if settings.switch(f"{card}.present") is not True:
            continue
        old = "e1000" if settings.text("guestOS").lower().endswith("64") else "vlance"
        model = settings.text(f"{card}.virtualDev").lower() or old
        own = settings.text(f"{card}.address") or settings.text(f"{card}.generatedAddress")
        address = own.strip().lower().replace("-", ":")
        # The lowest bit of the first byte marks a group: no card has such an address.
        single = _MAC.fullmatch(address) and not int(address[:2], 16) & 1
        yield Nic(_NICS.get(model, "vmxnet3"), address if single else "")


def _shortfalls(settings: Settings, firmware: Firmware) -> Iterator[str]:
    if firmware == "efi":
        yield (
            "boot entries of VMware's EFI are not read: the firmware looks for \\EFI\\BOOT on the "
            "disks, in order"
        )
    if settings.switch("vtpm.present"):
        yield "the VM's TPM is not there: a disk that BitLocker sealed asks for its recovery key"
    if settings.text("encryption.keySafe"):
        yield "the .vmx is encrypted: what it hides is not known"


def _base_name(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _uuid(text: str) -> str:
    """VMware writes `56 4d 0e ... 11-22 33 ...`."""
    digits = re.sub(r"[\s-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        return ""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
