"""How QEMU is told what a machine is: its command line.

Pure: decides devices, firmware, network and what the guest may not reach. Descriptors of sockets
that the caller made stand in it by number, so nothing of ours listens anywhere but VNC; no secret
is in it. Who runs it is for `machine.py`.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.boot.accelerator import Accelerator
from backpoint_fusefs.boot.disk_slots import Slot, plan_slots
from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.boot.firmware import FirmwareFiles
from backpoint_fusefs.boot.hardware import Nic
from backpoint_fusefs.boot.machine_plan import Forward, MachinePlan

FIRMWARE_PORT: Final = 0x402
"""Where SeaBIOS says what it does."""
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_NAME_MAX: Final = 64
_NIC_DEVICES: Final = {
    "vmxnet3": "vmxnet3",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "pcnet32": "pcnet",
}
_CONTROLLERS: Final = {
    "pvscsi": "pvscsi,id=pvscsi{0}",
    "lsisas1068": "mptsas1068,id=sas{0}",
    "sata": "ahci,id=sata{0}",
    "nvme": "nvme,id=nvme{0},serial=backpoint{0}",
}
_SCSI_DISK: Final = "lun=0,vendor=VMware,product=Virtual disk"
_DISKS: Final = {
    "pvscsi": "scsi-hd,bus=pvscsi{0}.0,scsi-id={1}," + _SCSI_DISK,
    "lsisas1068": "scsi-hd,bus=sas{0}.0,scsi-id={1}," + _SCSI_DISK,
    "sata": "ide-hd,bus=sata{0}.{1}",
    "ide": "ide-hd,bus=ide.{0},unit={1}",
    "nvme": "nvme-ns,bus=nvme{0},nsid={2}",
}


@dataclass(frozen=True)
class Wires:
    """Descriptors of connected sockets that QEMU inherits."""

    qmp: int
    console: int
    firmware: int


@dataclass(frozen=True)
class QemuCommand:
    """words: without the program. notes: what is not as the VM had it, for the user."""

    words: tuple[str, ...]
    notes: tuple[str, ...]


def plan_command(
    plan: MachinePlan, accelerator: Accelerator, firmware: FirmwareFiles | None, wires: Wires
) -> QemuCommand:
    """The machine begins paused. Raises MachineFailed where the plan cannot be."""
    hardware = plan.hardware
    if len(plan.disks) != len(hardware.disks):
        raise MachineFailed(f"{len(plan.disks)} files for {len(hardware.disks)} disks")
    slots, notes = plan_slots(hardware, plan.disk_bus)
    words = ["-name", f"guest={escaped(_shown(plan.name))}", "-nodefaults", "-no-user-config"]
    words += ["-S", "-sandbox", _SANDBOX, *accelerator.words, *_board(plan, firmware)]
    words += _wires(wires)
    words += _disks(plan.disks, slots)
    words += _network(plan)
    words += _screen(plan)
    words += plan.extra
    return QemuCommand(tuple(words), (*hardware.notes, *notes))


def escaped(text: str | Path) -> str:
    """As a value among QEMU's options, where a comma stands for the end of it."""
    return str(text).replace(",", ",,")


def _shown(name: str) -> str:
    plain = "".join(char if char.isprintable() else "?" for char in name)
    return plain.encode(errors="replace").decode()[:_NAME_MAX] or "guest"


def _board(plan: MachinePlan, firmware: FirmwareFiles | None) -> Iterator[str]:
    hardware = plan.hardware
    board = "q35,smm=on" if hardware.secure_boot else "pc"  # VMware's board is the pc's, an 440BX
    if firmware is not None:
        yield from ("-blockdev", _file_node("efi-code", firmware.code, writable=False))
        yield from ("-blockdev", _file_node("efi-variables", firmware.variables, writable=True))
        board += ",pflash0=efi-code,pflash1=efi-variables"
    yield from ("-machine", f"{board},vmport=off")
    if hardware.secure_boot:
        yield from ("-global", "driver=cfi.pflash01,property=secure,value=on")
        yield from ("-global", "ICH9-LPC.disable_s3=1")
    sockets = hardware.cores // hardware.cores_per_socket
    yield from (
        "-smp",
        f"{hardware.cores},sockets={sockets},cores={hardware.cores_per_socket},threads=1",
    )
    yield from ("-m", f"{plan.memory or hardware.memory}M")
    yield from ("-rtc", f"base={'localtime' if hardware.local_time else 'utc'}")
    if hardware.uuid:
        yield from ("-uuid", hardware.uuid)


def _wires(wires: Wires) -> Iterator[str]:
    yield from ("-chardev", f"socket,id=qmp,fd={wires.qmp}")
    yield from ("-mon", "chardev=qmp,mode=control")
    yield from ("-chardev", f"socket,id=console,fd={wires.console}", "-serial", "chardev:console")
    yield from ("-chardev", f"socket,id=firmware,fd={wires.firmware}")
    yield from ("-device", f"isa-debugcon,iobase={FIRMWARE_PORT},chardev=firmware")


def _disks(files: Sequence[Path], slots: Sequence[Slot]) -> Iterator[str]:
    controllers = dict.fromkeys((slot.bus, slot.controller) for slot in slots)
    for bus, number in sorted(controllers):
        if bus in _CONTROLLERS:
            yield from ("-device", _CONTROLLERS[bus].format(number))
    for number, (file, slot) in enumerate(zip(files, slots, strict=True)):
        yield from ("-blockdev", _file_node(f"disk{number}", file, writable=True))
        device = _DISKS[slot.bus].format(slot.controller, slot.unit, slot.unit + 1)
        yield from ("-device", f"{device},drive=disk{number},bootindex={number}")


def _file_node(name: str, file: Path, *, writable: bool) -> str:
    """The raw format is said, so that no header that a guest writes makes it another one."""
    below = {"driver": "file", "filename": str(file), "discard": "unmap"}
    node = {"driver": "raw", "node-name": name, "file": below, "read-only": not writable}
    return json.dumps(node | {"discard": "unmap"})


def _network(plan: MachinePlan) -> Iterator[str]:
    """The first card has the network; the others are there, as cards without a cable."""
    nics = list(plan.hardware.nics)
    connected = plan.network == "user" or plan.switch is not None
    if connected and not nics:
        nics = [Nic("vmxnet3")]
    if connected:
        yield from _wiring(plan)
    for number, nic in enumerate(nics):
        device = f"{_NIC_DEVICES[nic.model]},id=nic{number},romfile="
        if nic.address:
            device += f",mac={nic.address}"
        if connected and number == 0:
            device += ",netdev=net0"
        yield from ("-device", device)


def _wiring(plan: MachinePlan) -> Iterator[str]:
    if plan.switch is None:
        yield from ("-netdev", _user_network(plan))
        return
    own, peer = map(escaped, plan.switch)
    wire = f"local.type=unix,local.path={own},remote.type=unix,remote.path={peer}"
    # No user network beside it, in a hub: it answers with resets for what others are asked.
    yield from ("-netdev", f"dgram,id=net0,{wire}")


def _user_network(plan: MachinePlan) -> str:
    words = ["user", "id=net0", f"restrict={'on' if plan.isolated else 'off'}", "ipv6=off"]
    own = next((forward.guest_address for forward in plan.forwards if forward.guest_address), "")
    if own:
        words += _around(own)
    for item in plan.forwards:
        words.append(f"hostfwd=tcp:127.0.0.1:{item.host_port}-{_target(item)}:{item.guest_port}")
    return ",".join(words)


def _target(forward: Forward) -> str:
    return str(_address(forward.guest_address)) if forward.guest_address else ""


def _around(address: str) -> Iterator[str]:
    """A network that a guest with an address of its own is in: 256 addresses around it. Ours are
    the highest that are not the guest's, because gateways tend to have the lowest or the last."""
    guest = _address(address)
    network = ipaddress.IPv4Network(f"{guest}/24", strict=False)
    free = [network[number] for number in range(253, 200, -1) if network[number] != guest]
    yield from (f"net={network}", f"host={free[0]}", f"dns={free[1]}", f"dhcpstart={free[20]}")


def _address(text: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise MachineFailed(f"{text!r} is no IPv4 address of a guest") from None


def _screen(plan: MachinePlan) -> Iterator[str]:
    yield from ("-device", "VGA")
    if plan.display == "none":
        yield from ("-display", "none")
        return
    # Whoever may use this machine can reach its loopback: the password is set before it runs.
    yield from ("-vnc", "127.0.0.1:0,to=99,password=on")
    yield from ("-device", "piix3-usb-uhci,id=usb", "-device", "usb-tablet,bus=usb.0")
