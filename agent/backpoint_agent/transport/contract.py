"""What the run of a VM asks of a way to its disks, and no more.

A transport opens disks as the snapshot froze them, as `ImageSource`s of the repository. Which one
is used is for `choose.py`; which bytes are read, for whoever reads. Every transport checks that
what it serves has the size the snapshot says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_repo.source.contract import ImageSource


@dataclass(frozen=True)
class FrozenMachine:
    """What there is to read. snapshot: moref of ours; disks: as in the snapshot's configuration,
    only those that were selected and are fit; `file` is the frozen file, never the live delta."""

    machine: Machine
    snapshot: str
    disks: tuple[VirtualDisk, ...]


class OpenTransport(Protocol):
    """One VM's disks, reachable. Context: leave it before the snapshot is removed."""

    @property
    def name(self) -> str:
        """vddk, datastore, https, export or hotadd."""

    @property
    def note(self) -> str:
        """What the user may want to know of it ("nbdssl through vc1"), "" if nothing."""

    @property
    def reads_ranges(self) -> bool:
        """False where only whole disks can be had, in order (export): a changed-block list saves
        nothing then, and the audit is done by comparing everything."""

    @property
    def warnings(self) -> Sequence[str]:
        """After `close`: what could not be undone, for people; it is in the ledger too."""

    def open(self, disk: VirtualDisk) -> ImageSource:
        """Open one disk for reading. Raises TransportUnusable, SourceError, VSphereError."""

    def close(self) -> None:
        """Detach, end children, give leases back; idempotent. Raises nothing: what could not be
        undone stays in the ledger and is the reaper's."""


class Transport(Protocol):
    """A way, as configured; knows no VM yet."""

    @property
    def name(self) -> str:
        """vddk, datastore, https, export or hotadd."""

    def prepare(self, frozen: FrozenMachine) -> OpenTransport:
        """Make the VM's disks reachable. Raises TransportUnusable where it cannot serve this VM."""
