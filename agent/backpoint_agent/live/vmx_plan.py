"""The .vmx of a VM that will run from a session: the stored one, made fit for its new life. Pure.

Decides what of a stored .vmx still holds (its hardware), what belonged to the VM's old place and
must not come along (paths, swap files, ids, ports of a switch, consoles' passwords), and that what
is written proves later whose VM this is. What cannot be had again is said in a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from backpoint_agent.live.vmx_text import Vmx

MARK: Final = "backpoint.live"
"""Key in the .vmx and so in the VM's extraConfig; its value is the ledger's number. Not below
`guestinfo.`, which the guest itself may write."""

_OF_THE_OLD_PLACE: Final = re.compile(
    r"""uuid\.(location|action) | vc\.uuid | sched\.swap\..* | migrate\..* | vmotion\..*
    | checkpoint\..* | snapshot\..* | workingdir | suspend\.directory | snapshot\.directory
    | vmx\.log\..* | log\.filename | extendedconfigfile | viv\.moid | vmxstats\..*
    | cleanshutdown | softpoweroff | policy\.vm.* | remotedisplay\.vnc\..* | backpoint\..*
    | replay\..* | answer\..* | debugstub\..* | filesearchpath | managedvm\..* | vmci\d+\.id
    | toolsinstallmanager\..* | tools\.remindinstall | sharedfolder.* | usb\.autoconnect\..*
    | numa\.autosize\..* | .+\.redo | msg\.autoanswer | ctkenabled""",
    re.IGNORECASE | re.VERBOSE,
)
_NOT_TO_BE_HAD: Final = re.compile(
    r"(pcipassthru\d+|vtpm|sgx|encryption|datafilekey|serial\d+|parallel\d+|floppy\d+)"
    r"(\..*)?"
)
_TOLD: Final = {
    "pcipassthru": "a device of its old host",
    "vtpm": "the virtual TPM, without which BitLocker asks for its recovery key",
    "encryption": "the encryption of its home",
    "serial": "a serial port",
    "parallel": "a parallel port",
    "floppy": "a floppy drive",
}
_MEMORY_STEP: Final = 4
"""MiB; ESXi takes multiples only."""
_SLOT: Final = re.compile(r"((?:scsi|sata|nvme|ide)\d{1,2}:\d{1,3})\..+")
_CARD: Final = re.compile(r"(ethernet\d{1,2})\..+")
_OWN_ADDRESS: Final = ("address", "generatedaddress", "generatedaddressoffset")
_SWITCH_PORT: Final = ("dvs.portid", "dvs.connectionid")


@dataclass(frozen=True)
class VmxChoices:
    """name: as vSphere shall show it. mark: the ledger's number. disks: descriptors in the
    session's folder by slot ("scsi0:1"). connected: whether network cards that were connected are
    so again. same_machine: it takes the original's place, with its BIOS uuid and its addresses;
    else it is a copy. memory, cores: in place of what it had; MiB. files: names of small files that
    are beside the .vmx."""

    name: str
    mark: str
    disks: Mapping[str, str]
    connected: bool = False
    same_machine: bool = False
    memory: int | None = None
    cores: int | None = None
    files: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class PlannedVmx:
    """notes: what the VM does not have of what it had, for the user, a sentence each."""

    vmx: Vmx
    notes: tuple[str, ...]


def plan_vmx(stored: Vmx, choices: VmxChoices) -> PlannedVmx:
    """stored: is not changed."""
    vmx = Vmx(dict(stored.items()))
    notes: list[str] = []
    _leave_old_place(vmx, notes)
    _place_disks(vmx, choices, notes)
    _connect_cards(vmx, choices, notes)
    _size(vmx, choices)
    if vmx.get("nvram") not in choices.files:
        vmx.drop("nvram")
    vmx.set("displayName", choices.name)
    # Answers in advance what ESXi asks of every VM whose files have moved (msg.uuid.altered).
    vmx.set("uuid.action", "keep" if choices.same_machine else "create")
    vmx.set("ctkEnabled", "FALSE")
    vmx.set(MARK, choices.mark)
    return PlannedVmx(vmx, tuple(dict.fromkeys(notes)))


def slots_of(stored: Vmx) -> list[str]:
    """Where its disks sit, by bus, controller and unit: the order in which firmware sees them."""
    found = {match[1] for key in stored.names() if (match := _SLOT.fullmatch(key))}
    return sorted((slot for slot in found if _is_disk(stored, slot)), key=_slot_order)


def _size(vmx: Vmx, choices: VmxChoices) -> None:
    if choices.memory is not None:
        vmx.set("memSize", str(-(-choices.memory // _MEMORY_STEP) * _MEMORY_STEP))
        for part in ("min", "minSize", "max", "pin"):
            vmx.drop(f"sched.mem.{part}")
    if choices.cores is not None:
        vmx.set("numvcpus", str(choices.cores))
        vmx.drop("cpuid.coresPerSocket")


def _leave_old_place(vmx: Vmx, notes: list[str]) -> None:
    for key in vmx.names():
        if _OF_THE_OLD_PLACE.fullmatch(key):
            vmx.drop(key)
        elif match := _NOT_TO_BE_HAD.fullmatch(key):
            kind = re.sub(r"[\d:]+$", "", match[1])
            # Of each device only whether it was there is worth a note.
            if kind in _TOLD and (vmx.is_true(f"{match[1]}.present") or kind == "encryption"):
                notes.append(f"without {_TOLD[kind]} ({match[1]})")
            vmx.drop(key)


def _place_disks(vmx: Vmx, choices: VmxChoices, notes: list[str]) -> None:
    for slot in {match[1]: None for key in vmx.names() if (match := _SLOT.fullmatch(key))}:
        if _is_disk(vmx, slot):
            _place_disk(vmx, slot, choices, notes)
        elif _is_drive(vmx, slot) and vmx.is_true(f"{slot}.present"):
            _empty_drive(vmx, slot)
        else:
            _remove(vmx, slot)
    for slot in set(choices.disks) - set(slots_of(vmx)):
        _add_disk(vmx, slot, choices.disks[slot])


def _place_disk(vmx: Vmx, slot: str, choices: VmxChoices, notes: list[str]) -> None:
    if slot not in choices.disks:
        _remove(vmx, slot)
        notes.append(f"without the disk {slot}, which is not in the point")
        return
    if "multi" in vmx.get(f"{slot}.sharing").lower():
        notes.append(f"the disk {slot} is not shared with other VMs any more")
    for part in ("sharing", "ctkEnabled", "writeThrough", "mode", "shares"):
        vmx.drop(f"{slot}.{part}")
    vmx.set(f"{slot}.fileName", choices.disks[slot])
    vmx.set(f"{slot}.ctkEnabled", "FALSE")


def _add_disk(vmx: Vmx, slot: str, file: str) -> None:
    bus = slot.partition(":")[0]
    if bus.startswith("scsi") and not vmx.is_true(f"{bus}.present"):
        vmx.set(f"{bus}.virtualDev", "pvscsi")
    if not bus.startswith("ide"):
        vmx.set(f"{bus}.present", "TRUE")
    vmx.set(f"{slot}.present", "TRUE")
    if bus.startswith("scsi"):
        vmx.set(f"{slot}.deviceType", "scsi-hardDisk")
    vmx.set(f"{slot}.fileName", file)
    vmx.set(f"{slot}.ctkEnabled", "FALSE")


def _empty_drive(vmx: Vmx, slot: str) -> None:
    """An image may lie where the new host reaches nothing; a drive of the host is not this one."""
    _remove(vmx, slot)
    vmx.set(f"{slot}.present", "TRUE")
    vmx.set(f"{slot}.deviceType", "atapi-cdrom")
    vmx.set(f"{slot}.fileName", "emptyBackingString")
    vmx.set(f"{slot}.clientDevice", "TRUE")
    vmx.set(f"{slot}.startConnected", "FALSE")


def _connect_cards(vmx: Vmx, choices: VmxChoices, notes: list[str]) -> None:
    cards = dict.fromkeys(match[1] for key in vmx.names() if (match := _CARD.fullmatch(key)))
    for card in cards:
        if not vmx.is_true(f"{card}.present"):
            _remove(vmx, card)
            continue
        for part in _SWITCH_PORT:
            # The port is the original's for as long as that exists.
            vmx.drop(f"{card}.{part}")
        if not choices.same_machine:
            for part in _OWN_ADDRESS:
                vmx.drop(f"{card}.{part}")
            vmx.set(f"{card}.addressType", "generated")
        if not choices.connected:
            vmx.set(f"{card}.startConnected", "FALSE")
        elif f"{card}.dvs.portgroupId" in vmx:
            notes.append(
                f"{card} was on a distributed switch: see in vSphere whether it is connected"
            )


def _remove(vmx: Vmx, device: str) -> None:
    for key in vmx.below(device):
        vmx.drop(key)


def _is_drive(vmx: Vmx, slot: str) -> bool:
    kind = vmx.get(f"{slot}.deviceType").lower()
    return "cdrom" in kind or "atapi" in kind or "passthru" in kind


def _is_disk(vmx: Vmx, slot: str) -> bool:
    """Present, and no drive. NVMe and SATA disks need no deviceType."""
    return (
        vmx.is_true(f"{slot}.present")
        and not _is_drive(vmx, slot)
        and vmx.get(f"{slot}.fileName").lower() != "emptybackingstring"
    )


def _slot_order(slot: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([a-z]+)(\d+):(\d+)", slot)
    assert match
    bus = ("scsi", "sata", "nvme", "ide").index(match[1])
    return bus, int(match[2]), int(match[3])
