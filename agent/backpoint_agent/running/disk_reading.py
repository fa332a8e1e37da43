"""How each disk of a frozen VM is read: by its changed areas if they can be believed, else whole.

Decides, disk by disk, with what the parent point recorded; then lets the audit look for a lie. One
lie is enough to read all disks of the VM whole. Knows nothing of snapshots or transports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from backpoint_agent.audit_sample import plan_sample
from backpoint_agent.errors import ChangeTrackingLost
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.running.outcome import Notes
from backpoint_agent.running.parts import RunParts
from backpoint_agent.tracked_disk import (
    DAY_S,
    ChangedReading,
    FullReading,
    Past,
    Present,
    plan_reading,
)
from backpoint_agent.vsphere.change_tracking import Areas
from backpoint_repo.backup_session import BackupSession, DiskJob
from backpoint_repo.source.contract import ImageSource

QueryAreas = Callable[[VirtualDisk, str], Areas]
"""disk, change id -> what changed since. Raises ChangeTrackingLost."""


@dataclass(frozen=True)
class Reading:
    """One disk: changed None reads all of it. how: full, compare or changed; why: for the user.
    full_at: when all of it was last read, seconds since 1970. audited: bytes."""

    disk: VirtualDisk
    source: ImageSource
    changed: Areas | None
    how: str
    why: str
    full_at: float
    audited: int = 0

    @property
    def job(self) -> DiskJob:
        """As the session takes it."""
        return DiskJob(self.disk.key, self.source, self.changed)


class DiskReading:
    """For one run of one VM."""

    def __init__(
        self, parts: RunParts, machine: Machine, session: BackupSession, notes: Notes
    ) -> None:
        self._parts = parts
        self._machine = machine
        self._session = session
        self._notes = notes
        self.lied = False
        """Whether the audit found a change that change tracking did not report."""

    def plan(
        self,
        disks: Iterable[VirtualDisk],
        sources: Mapping[str, ImageSource],
        query: QueryAreas | None,
        without: str,
    ) -> list[Reading]:
        """query None: change tracking is not used, and `without` says why. Sources by disk key."""
        readings = [self._plan(disk, sources[disk.key], query, without) for disk in disks]
        audited = [self._audited(reading) for reading in readings]
        if not self.lied:
            return audited
        return [
            self._full(reading.disk, reading.source, "change tracking has lied: all is compared")
            for reading in audited
        ]

    def _plan(
        self, disk: VirtualDisk, source: ImageSource, query: QueryAreas | None, without: str
    ) -> Reading:
        if query is None:
            return self._full(disk, source, without)
        planned = plan_reading(disk, self._past(), self._present())
        if isinstance(planned, FullReading):
            if not planned.expected:
                self._notes.warn(f"{disk.slot}: read in full: {planned.reason}")
            return self._full(disk, source, planned.reason)
        try:
            changed = query(disk, planned.since)
        except ChangeTrackingLost as error:
            self._notes.warn(f"{disk.slot}: read in full: {error}")
            return self._full(disk, source, str(error))
        return self._by_areas(disk, source, changed, planned)

    def _by_areas(
        self, disk: VirtualDisk, source: ImageSource, changed: Areas, planned: ChangedReading
    ) -> Reading:
        amount = sum(length for _, length in changed)
        why = f"{len(changed)} changed areas, {amount} bytes"
        return Reading(disk, source, changed, "changed", why, planned.full_at)

    def _full(self, disk: VirtualDisk, source: ImageSource, why: str) -> Reading:
        parent = self._session.parent
        known = parent is not None and any(stored.key == disk.key for stored in parent.disks)
        how = "compare" if known else "full"
        return Reading(disk, source, None, how, why, self._parts.clock())

    def _audited(self, reading: Reading) -> Reading:
        audit = self._parts.job.change_tracking.audit
        if reading.changed is None or audit.probability == 0 or self._session.parent is None:
            return reading
        generation = self._session.parent.generation + 1
        secret = f"{self._machine.identity} {reading.disk.key}".encode()
        sample = plan_sample(
            reading.disk.size, audit.probability, audit.runs, generation, self._secret(secret)
        )
        found = self._session.audit(reading.job, sample)
        if isinstance(found, str):
            self._notes.warn(f"{reading.disk.slot}: could not be audited: {found}")
            return reading
        if found.different:
            self.lied = True
            offset, length = found.different[0]
            self._notes.alarm(
                f"{reading.disk.slot}: change tracking has lied: of what it says is unchanged, "
                f"{sum(size for _, size in found.different)} bytes of the sample differ, the first "
                f"{length} at {offset}"
            )
        return replace(reading, audited=found.read)

    def _secret(self, what: bytes) -> bytes:
        return self._parts.repository.sealed.keyring.chunk_id_key + what

    def _past(self) -> Past | None:
        parent = self._session.parent
        return None if parent is None else Past(parent.capture, parent.created)

    def _present(self) -> Present:
        days = self._parts.job.change_tracking.full_every_days
        return Present(
            self._machine.identity,
            self._machine.current_snapshot,
            None if days is None else days * DAY_S,
            self._parts.clock(),
        )
