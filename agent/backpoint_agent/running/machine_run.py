"""The run of one VM, from its lock to the last look whether anything of ours was left.

Decides the order, and that whatever fails the snapshot goes: lock, reap what a dead run left, check
disks, change tracking, freeze, read, store, publish, release, verify. A point is published only if
every disk it is to hold is whole. Every failure ends as a `MachineOutcome`; only bugs are raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from backpoint_agent.errors import Busy, MachineUnfit, Stopped
from backpoint_agent.fitness import why_not
from backpoint_agent.machine import Machine
from backpoint_agent.machine_lock import machine_lock
from backpoint_agent.reaping.reap import reap_before
from backpoint_agent.running.capture_record import Making, capture_of
from backpoint_agent.running.disk_reading import DiskReading, Reading
from backpoint_agent.running.frozen_guest import Frozen, FrozenGuest, Released
from backpoint_agent.running.machine_files import read_machine_files
from backpoint_agent.running.outcome import (
    DiskOutcome,
    MachineOutcome,
    Notes,
    Status,
    hopeless,
    may_pass,
)
from backpoint_agent.running.parts import RunParts
from backpoint_agent.running.tracking import Tracking
from backpoint_agent.selection import DiskPlan, plan_disks
from backpoint_agent.snapshot_name import parse_description, parse_name
from backpoint_agent.transport.bandwidth import Paced
from backpoint_agent.transport.choose import Chosen, choose_transport
from backpoint_agent.transport.contract import FrozenMachine
from backpoint_agent.vsphere.machine_reading import read_machine, snapshot_disks
from backpoint_repo.backup_session import BackupSession
from backpoint_repo.errors import BackpointError
from backpoint_repo.point import Point
from backpoint_repo.point_note import AFTERMATH, PointNote, put_note

_OTHERS_FRESH_S: Final = 86_400.0
"""A snapshot that another agent made within a day is taken for one that it still reads."""


@dataclass
class _State:
    """What is known of the run so far."""

    machine: Machine
    stored_as: str = ""
    frozen: Frozen | None = None
    released: Released | None = None
    readings: list[Reading] = field(default_factory=list)
    transport: str = ""
    point: Point | None = None
    error: BackpointError | None = None
    lied: bool = False


class MachineRun:
    """One VM, once. For one thread."""

    def __init__(self, parts: RunParts, machine: Machine, *, full: bool) -> None:
        """machine: as the inventory saw it; looked at again once the lock is held."""
        self._parts = parts
        self._full = full
        self._notes = Notes()
        self._state = _State(machine)
        self._tracking = Tracking(parts, machine, self._notes)

    def run(self) -> MachineOutcome:
        """All of it. Raises nothing that the outside can cause."""
        parts, started = self._parts, self._parts.clock()
        machine = self._state.machine
        try:
            parts.stop.check()
            with machine_lock(
                parts.locks,
                machine.identity,
                machine.name,
                "backup",
                limit_s=parts.waits.machine_lock_s,
                stop=parts.stop,
                on_wait=lambda holder: parts.watcher.phase(machine.name, f"waiting for {holder}"),
            ):
                try:
                    self._run_locked()
                finally:
                    parts.ledger.leave_behind(
                        parts.vcenter.uuid, machine.moref, "its run has ended"
                    )
        except BackpointError as error:
            self._state.error = error
        return self._outcome(started)

    def _run_locked(self) -> None:
        parts = self._parts
        for outcome in reap_before(parts.means, self._state.machine):
            tell = self._notes.alarm if outcome.is_open else self._notes.warn
            tell(f"left over by an earlier run, {outcome.step.what}: {outcome.said}")
        machine = read_machine(parts.vcenter, self._state.machine.moref)
        self._state.machine = machine = replace(machine, tags=self._state.machine.tags)
        self._refuse_unfit(machine)
        self._tracking = tracking = Tracking(parts, machine, self._notes)
        tracking.prepare()
        guest = FrozenGuest(parts, machine, self._notes)
        try:
            self._state.frozen = guest.freeze()
            self._store(self._state.frozen)
        except BackpointError as error:
            self._state.error = error
        finally:
            self._state.released = guest.release()
        if self._state.lied:
            tracking.reset()
        self._note_aftermath()

    def _refuse_unfit(self, machine: Machine) -> None:
        if reasons := why_not(machine):
            raise MachineUnfit(f"{machine.name} cannot be backed up: {'; '.join(reasons)}")
        if refusal := plan_disks(machine, self._parts.job).refusal:
            raise MachineUnfit(refusal)
        for note in machine.snapshots:
            if parse_name(note.name) is None:
                continue
            mark = parse_description(note.description)
            age_s = self._parts.clock() - (mark.at if mark else note.created)
            whose = f"an agent on {mark.host}" if mark else "an agent"
            if age_s < _OTHERS_FRESH_S:
                raise Busy(f"{machine.name}: {whose} works on it (its snapshot {note.name})")
            self._notes.alarm(
                f"{whose} left the snapshot {note.name}; `backpoint agent reap --orphans` removes "
                "it if no ledger knows it"
            )
        if machine.snapshots:
            self._notes.warn(
                f"the VM has {len(machine.snapshots)} snapshots of its own; the point is of its "
                "present state"
            )

    def _store(self, frozen: Frozen) -> None:
        parts, machine = self._parts, self._state.machine
        disks = machine.disks
        if frozen.snapshot:
            disks = snapshot_disks(parts.vcenter, frozen.snapshot)
        plan = plan_disks(replace(machine, disks=disks), parts.job)
        if plan.refusal:
            raise MachineUnfit(plan.refusal)
        for item in plan.skipped:
            if item.wanted:
                self._notes.warn(f"{item.disk.slot} ({item.disk.label}) is left out: {item.reason}")
        parts.watcher.phase(machine.name, "finding a transport")
        chosen = choose_transport(
            parts.order,
            parts.transports,
            FrozenMachine(machine, frozen.snapshot, plan.chosen),
        )
        self._state.transport = chosen.transport.name
        for reason in chosen.passed_over:
            self._notes.warn(f"transport {reason}")
        try:
            self._into_repository(frozen, plan, chosen)
        finally:
            # Before the snapshot goes: an attached disk would keep it from being merged.
            chosen.close()
            for text in chosen.transport.warnings:
                self._notes.alarm(text)

    def _into_repository(self, frozen: Frozen, plan: DiskPlan, chosen: Chosen) -> None:
        parts, machine = self._parts, self._state.machine
        named = parts.names.name_of(machine)
        if named.warning:
            self._notes.warn(named.warning)
        self._state.stored_as = named.name
        sources = {
            disk.key: Paced(chosen.sources[disk.key], parts.bandwidth, parts.stop)
            for disk in plan.chosen
        }
        with parts.repository.begin_backup(named.name) as session:
            parts.watcher.phase(machine.name, "asking what changed")
            reading = DiskReading(parts, machine, session, self._notes)
            query, without = self._tracking.query(frozen.snapshot, chosen.transport)
            if self._full:
                query, without = None, "a full was asked for"
            readings = reading.plan(plan.chosen, sources, query, without)
            self._state.readings, self._state.lied = readings, reading.lied
            self._store_disks(session, readings)
            for name, content in read_machine_files(parts.vcenter, machine, self._notes).items():
                session.store_file(name, content)
            parts.stop.check()
            making = Making(
                parts.job.name, chosen.transport.name, chosen.transport.note, self._tracking.state
            )
            session.warnings += self._notes.warnings + self._notes.alarms
            self._state.point = session.publish(
                time=frozen.at,
                label="",
                consistency=frozen.consistency,
                capture=capture_of(machine, frozen, readings, plan.skipped, making),
            )
        parts.names.published(machine, named.name)

    def _store_disks(self, session: BackupSession, readings: list[Reading]) -> None:
        watcher, name = self._parts.watcher, self._state.machine.name
        watcher.phase(name, "reading")
        watcher.reading(name, sum(reading.disk.size for reading in readings))
        for reading in readings:
            session.store_disk(reading.job, lambda size: watcher.advance(name, size))

    def _note_aftermath(self) -> None:
        """What is known only now stands beside the point."""
        state, sealed = self._state, self._parts.repository.sealed
        if state.point is None or state.released is None:
            return
        facts = {
            "snapshot_remove_s": state.released.remove_s,
            "snapshot_remove_stun_s": state.released.stun_s,
            "alarms": list(self._notes.alarms),
        }
        note = PointNote(state.point.point_id, AFTERMATH, self._parts.clock(), facts)
        try:
            put_note(sealed, note)
        except BackpointError as error:
            self._notes.warn(f"what came after the point could not be recorded: {error}")

    def _outcome(self, started: float) -> MachineOutcome:
        state, notes = self._state, self._notes
        point, error = state.point, state.error
        status: Status = "done" if point else "stopped" if isinstance(error, Stopped) else "failed"
        traffic = point.traffic if point else None
        return MachineOutcome(
            vm=state.machine.name,
            moref=state.machine.moref,
            identity=str(state.machine.identity),
            stored_as=state.stored_as,
            status=status,
            started=started,
            ended=self._parts.clock(),
            point=point.point_id.hex() if point else "",
            point_time=point.time if point else None,
            error="" if point or error is None else str(error),
            temporary=point is None and error is not None and may_pass(error),
            hopeless=point is None and error is not None and hopeless(error),
            consistency=state.frozen.consistency if state.frozen else "",
            transport=state.transport,
            disks=tuple(_disk_outcome(reading) for reading in state.readings),
            size=point.size if point else 0,
            read=traffic.read if traffic else 0,
            new=traffic.new if traffic else 0,
            stored=traffic.stored if traffic else 0,
            snapshot_create_s=state.frozen.create_s if state.frozen else None,
            snapshot_remove_s=state.released.remove_s if state.released else None,
            stun_create_s=state.frozen.stun_s if state.frozen else None,
            stun_remove_s=state.released.stun_s if state.released else None,
            warnings=tuple(notes.warnings),
            alarms=tuple(notes.alarms),
        )


def _disk_outcome(reading: Reading) -> DiskOutcome:
    disk = reading.disk
    return DiskOutcome(disk.key, disk.slot, disk.size, reading.how, reading.why, reading.audited)
