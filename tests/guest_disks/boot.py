"""Booting a disk in QEMU until it says on its serial console that it lives.

Decides the machine: pure emulation, because /dev/kvm of nested machines opens and then does not
run a guest. Knows nothing of what the disk holds or where it lies.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass
from typing import Literal

Bus = Literal["virtio", "nvme", "pvscsi", "ide"]

_DEVICES: dict[Bus, tuple[str, ...]] = {
    "virtio": ("virtio-blk-pci,drive=d0,bootindex=0",),
    "nvme": ("nvme,drive=d0,serial=guest,bootindex=0",),
    "pvscsi": ("pvscsi", "scsi-hd,drive=d0,bootindex=0"),
    "ide": ("ide-hd,drive=d0,bus=ide.0,bootindex=0",),
}
_LAST_WORDS = 2000


class NoMarker(Exception):
    """The guest did not print its marker in time; the message holds the console's last words."""


@dataclass(frozen=True)
class BootReport:
    """The line with the marker, its `key=value` words, and the seconds from start to it."""

    line: str
    seconds: float

    @property
    def fields(self) -> dict[str, str]:
        pairs = (word.partition("=") for word in self.line.split())
        return {key: value for key, equals, value in pairs if equals}


def boot(
    drive: str,
    *,
    timeout_s: float,
    marker: str = "BOOT-OK",
    snapshot: bool = True,
    bus: Bus = "virtio",
    memory_mib: int = 256,
) -> BootReport:
    """Boot `drive` (a QEMU drive: `file=disk.raw,format=raw`) until `marker` is on the console.

    With `snapshot` the disk is not written. QEMU has ended when this returns. Raises NoMarker.
    """
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-machine", "pc"]
    command += ["-m", f"{memory_mib}M", "-nodefaults", "-display", "none", "-no-reboot"]
    command += ["-serial", "stdio", "-drive", f"if=none,id=d0,{drive}"]
    for device in _DEVICES[bus]:
        command += ["-device", device]
    if snapshot:
        command.append("-snapshot")
    start = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as machine:
        try:
            line = _wait_for(machine, marker.encode(), start + timeout_s)
            return BootReport(line, time.monotonic() - start)
        finally:
            _end(machine)


def _wait_for(machine: subprocess.Popen[bytes], marker: bytes, deadline: float) -> str:
    assert machine.stdout is not None
    console = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([machine.stdout], [], [], left)
        piece = os.read(machine.stdout.fileno(), 65536) if ready else b""
        if not piece:
            break
        console += piece
        found = console.find(marker)
        if found >= 0 and (end := console.find(b"\n", found)) >= 0:
            return console[found:end].decode(errors="replace").strip()
    said = console[-_LAST_WORDS:].decode(errors="replace").strip()
    raise NoMarker(f"no {marker.decode()} on the console; its last words: {said or 'none'}")


def _end(machine: subprocess.Popen[bytes]) -> None:
    machine.terminate()
    try:
        machine.wait(10)
    except subprocess.TimeoutExpired:
        machine.kill()
