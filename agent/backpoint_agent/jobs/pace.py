"""Which waiting VM may start now, beside those that run: limits of vCenter, host and datastore.

Pure. The first in line that fits is started, whichever job it belongs to, so one whose host is busy
holds up nobody else. Who has been overtaken for long is overtaken no more: what it lacks is kept
for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from backpoint_agent.machine import Machine
from backpoint_agent.settings.model import Job, VCenterSettings

PATIENCE_S: Final = 1800.0
"""A VM with twenty disks finds twenty free connections at once only by luck: after half an hour
those behind it leave it what comes free."""

Kind = Literal["job", "machines", "connections", "host", "datastore"]
Room = tuple[Kind, str, str]
"""What has a limit: the machines of a job, machines or connections of a vCenter, one of its hosts,
one of its datastores."""


@dataclass(frozen=True)
class Claim:
    """What one VM takes while it runs. connections: one for each disk, as NFC counts them."""

    job: str
    vcenter: str
    host: str
    datastores: frozenset[str]
    connections: int

    def takes(self) -> dict[Room, int]:
        """How much of each room."""
        rooms: dict[Room, int] = {
            ("job", self.job, ""): 1,
            ("machines", self.vcenter, ""): 1,
            ("connections", self.vcenter, ""): self.connections,
            ("host", self.vcenter, self.host): 1,
        }
        return rooms | {("datastore", self.vcenter, name): 1 for name in self.datastores}


@dataclass(frozen=True)
class Caps:
    """At most so many: VMs of the job, of a host and of a datastore; VMs and connections of the
    vCenter, of all jobs together. A VM that wants more than there is runs when nobody else has
    any."""

    job: int
    host: int
    datastore: int
    machines: int
    connections: int


@dataclass(frozen=True)
class Waiting:
    """A VM in line. run: whose it is; ready: since when it may start, tries: made already."""

    run: str
    machine: Machine
    claim: Claim
    caps: Caps
    ready: float
    """Seconds on the clock that `next_to_start` is given."""
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


def next_to_start(line: Sequence[Waiting], running: Iterable[Claim], now: float) -> Waiting | None:
    """The first of the line that may start, or None. now: seconds on a clock that only grows."""
    taken: Counter[Room] = Counter()
    for claim in running:
        taken.update(claim.takes())
    kept: set[Room] = set()
    for item in line:
        if item.ready > now:
            continue
        full = _full(item, taken)
        if not full and kept.isdisjoint(item.claim.takes()):
            return item
        # One that only waits for its own job's others keeps nothing from other jobs.
        if now - item.ready > PATIENCE_S and ("job", item.claim.job, "") not in full:
            kept |= full
    return None


def _full(item: Waiting, taken: Counter[Room]) -> set[Room]:
    """The rooms that have no place for it."""
    return {
        room
        for room, size in item.claim.takes().items()
        if taken[room] and taken[room] + size > getattr(item.caps, room[0])
    }
