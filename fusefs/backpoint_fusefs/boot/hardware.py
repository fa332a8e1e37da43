"""The virtual hardware that a VM had, as its .vmx tells, in terms of what boots it.

Decides what of a .vmx matters for booting and what stands for it where it says nothing. Pure; a
.vmx is untrusted text. How QEMU is told is for `qemu_command.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Firmware = Literal["bios", "efi"]
DiskBus = Literal["pvscsi", "lsilogic", "lsisas1068", "buslogic", "sata", "ide", "nvme"]
NicModel = Literal["vmxnet3", "e1000", "e1000e", "pcnet32"]


@dataclass(frozen=True)
class BootDisk:
    """bus and unit: where the guest found it. file: the descriptor in the VM's folder."""

    bus: DiskBus
    controller: int
    unit: int
    file: str


@dataclass(frozen=True)
class Nic:
    """address: MAC, empty where none is given."""

    model: NicModel
    address: str = ""


@dataclass(frozen=True)
class Hardware:
    """memory: MiB. disks: in boot order. notes: what was not understood or is replaced by something
    else, for the user."""

    firmware: Firmware = "bios"
    secure_boot: bool = False
    cores: int = 1
    memory: int = 1024
    disks: tuple[BootDisk, ...] = ()
    nics: tuple[Nic, ...] = ()
    nvram: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)


def hardware_of(vmx: bytes | None, disks: int) -> Hardware:
    """disks: how many the point has; those that the .vmx does not name come last, on pvscsi. None:
    there is no .vmx. Never raises for what a .vmx says."""
    raise NotImplementedError
