"""Which waiting VM may start now, beside those that run: limits of vCenter, host and datastore.

Pure. The first in line that fits is started, so one whose host is busy holds up nobody else. What a
VM takes is counted while it runs, whichever job it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backpoint_agent.machine import Machine
from backpoint_agent.settings.model import Job, VCenterSettings


@dataclass(frozen=True)
class Claim:
    """What one VM takes while it runs. connections: one for each disk, as NFC counts them."""

    job: str
    vcenter: str
    host: str
    datastores: frozenset[str]
    connections: int


@dataclass(frozen=True)
class Caps:
    """At most so many: VMs of the job, of a host and of a datastore; VMs and connections of the
    vCenter, of all jobs together."""

    job: int
    host: int
    datastore: int
    vcenter: int
    connections: int


@dataclass(frozen=True)
class Waiting:
    """A VM that waits. not_before: on the monotonic clock, seconds; tries: made already."""

    machine: Machine
    claim: Claim
    not_before: float = 0.0
    tries: int = 0


def claim_of(job: Job, vcenter: str, machine: Machine) -> Claim:
    """What the run of this VM takes."""
    return Claim(
        job.name,
        vcenter,
        machine.host,
        frozenset(disk.datastore for disk in machine.disks if disk.datastore),
        len(machine.disks),
    )


def caps_of(job: Job, account: VCenterSettings) -> Caps:
    """The limits that a job's VMs are started under."""
    limits = job.limits
    return Caps(
        limits.machines_at_once,
        limits.per_host,
        limits.per_datastore,
        account.machines_at_once,
        account.nfc_connections,
    )


def next_to_start(
    waiting: Sequence[Waiting], running: Iterable[Claim], caps: Caps, now: float
) -> Waiting | None:
    """The first that may start at `now` (monotonic seconds), or None."""
    taken = list(running)
    for item in waiting:
        if item.not_before <= now and _fits(item.claim, taken, caps):
            return item
    return None


def _fits(claim: Claim, running: list[Claim], caps: Caps) -> bool:
    beside = [other for other in running if other.vcenter == claim.vcenter]
    connections = sum(other.connections for other in beside)
    return (
        sum(other.job == claim.job for other in running) < caps.job
        and sum(other.host == claim.host for other in beside) < caps.host
        and all(
            sum(datastore in other.datastores for other in beside) < caps.datastore
            for datastore in claim.datastores
        )
        and len(beside) < caps.vcenter
        # A VM with more disks than there are connections starts when nobody else has any.
        and (connections == 0 or connections + claim.connections <= caps.connections)
    )
