"""What a machine shall be: its hardware, its disks' files, what it may reach, who may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backpoint_fusefs.boot.accelerator import Accelerator
from backpoint_fusefs.boot.hardware import DiskBus, Hardware

Network = Literal["none", "user"]
Display = Literal["none", "vnc"]


@dataclass(frozen=True)
class Forward:
    """A port of the guest that the host reaches at 127.0.0.1:host_port. guest_address: where the
    guest has one of its own; empty: it asks by DHCP."""

    host_port: int
    guest_port: int
    guest_address: str = ""


@dataclass(frozen=True)
class MachinePlan:
    """disks: raw files, one for each of hardware.disks, writable. network: `user` lets the guest
    out unless isolated; isolated: the guest reaches nobody, only `forwards` reach it. switch: paths
    of (own, peer) datagram sockets of a closed network of several guests, in place of any other.
    scratch: a private folder for NVRAM and screenshots. memory: MiB, in place of the hardware's.
    disk_bus: all disks sit there, whatever the hardware says. accelerator: None: find out. extra:
    words for QEMU."""

    hardware: Hardware
    disks: Sequence[Path]
    scratch: Path
    name: str = "guest"
    network: Network = "none"
    isolated: bool = True
    forwards: Sequence[Forward] = ()
    switch: tuple[Path, Path] | None = None
    display: Display = "none"
    memory: int | None = None
    disk_bus: DiskBus | None = None
    accelerator: Accelerator | None = None
    extra: Sequence[str] = field(default_factory=tuple)
