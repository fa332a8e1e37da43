"""A guest that runs in QEMU, from its start to its end, with its console and its screen.

Decides how QEMU is started, watched and ended (QMP on a private socket), and the accelerator: KVM
where it truly boots, else TCG. The disks are files that somebody else keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backpoint_fusefs.boot.hardware import Hardware

Network = Literal["none", "user"]
Display = Literal["none", "vnc"]


@dataclass(frozen=True)
class Forward:
    """A port of the guest that the host reaches at 127.0.0.1:host_port."""

    host_port: int
    guest_port: int
    guest_address: str = ""


@dataclass(frozen=True)
class MachinePlan:
    """disks: raw files, one for each of hardware.disks, writable. network: `user` lets the guest
    out unless isolated; isolated: the guest reaches nobody, only `forwards` reach it. switch: paths
    of (own, peer) datagram sockets of a closed network of several guests. scratch: a private
    folder for sockets, console log and NVRAM. serial: where the console goes besides its log."""

    hardware: Hardware
    disks: Sequence[Path]
    scratch: Path
    name: str = "guest"
    network: Network = "none"
    isolated: bool = True
    forwards: Sequence[Forward] = ()
    switch: tuple[Path, Path] | None = None
    display: Display = "none"
    console_on_terminal: bool = False
    memory: int | None = None
    extra: Sequence[str] = field(default_factory=tuple)


class Machine:
    """A context manager: QEMU has ended when it is left. Sync; for one thread."""

    accelerator: str
    why_not_kvm: str

    def __init__(self, plan: MachinePlan) -> None:
        """Start QEMU. Raises MachineFailed with QEMU's own last words."""
        raise NotImplementedError

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        raise NotImplementedError

    @property
    def running(self) -> bool:
        raise NotImplementedError

    def console(self) -> bytes:
        """What the guest has written on its serial console so far; the last 256 KiB."""
        raise NotImplementedError

    def type(self, text: bytes) -> None:
        """On the serial console."""
        raise NotImplementedError

    def screenshot(self) -> bytes:
        """A PNG of what is on the screen now. Raises MachineFailed."""
        raise NotImplementedError

    def power_button(self) -> None:
        """ACPI: a guest that listens shuts down."""
        raise NotImplementedError

    def wait(self, timeout_s: float | None) -> bool:
        """Whether it ended by itself in time."""
        raise NotImplementedError

    def end(self) -> None:
        """At once; harmless when repeated."""
        raise NotImplementedError
