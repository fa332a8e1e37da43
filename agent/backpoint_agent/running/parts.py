"""What the run of a VM is given: the doors to the outside, and the job's words. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backpoint_agent.ledger import Ledger
from backpoint_agent.machine_names import MachineNames
from backpoint_agent.reaping.apply import Means
from backpoint_agent.settings.model import Job, TransportName, Waits
from backpoint_agent.stopping import Stop
from backpoint_agent.transport.bandwidth import Bandwidth
from backpoint_agent.transport.contract import Transport
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.repository import Repository


class Watcher(Protocol):
    """Who is told how far a run is. Called from the VM's thread; must not raise."""

    def phase(self, vm: str, text: str) -> None:
        """What the run of this VM does now ("waiting for the snapshot")."""

    def reading(self, vm: str, size: int) -> None:
        """Disks of so many bytes are going to be dealt with."""

    def advance(self, vm: str, size: int) -> None:
        """So many bytes more have been."""


@dataclass(frozen=True)
class RunParts:
    """order: in which transports are tried. jobs: all there are, for the reaper's logins to guests.
    locks: folder of the locks of VMs. clock: seconds since 1970.
    again_s: pause between tries to remove our snapshot."""

    vcenter: VCenter
    repository: Repository
    ledger: Ledger
    names: MachineNames
    transports: tuple[Transport, ...]
    order: tuple[TransportName, ...]
    job: Job
    jobs: Mapping[str, Job]
    waits: Waits
    bandwidth: Bandwidth | None
    locks: Path
    watcher: Watcher
    stop: Stop
    clock: Callable[[], float]
    again_s: float = 5.0

    @property
    def means(self) -> Means:
        """What the reaper needs to clear up before a run."""
        return Means(self.vcenter, self.ledger, self.waits, self.jobs, self.stop)
