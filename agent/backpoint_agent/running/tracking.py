"""Change tracking in the run of one VM: switched on where the job wants it, used where it can be,
reset after a lie.

Decides whether changed areas are asked for at all; which answers are believed is for
`disk_reading.py`.
"""

from __future__ import annotations

from backpoint_agent.errors import ObjectGone
from backpoint_agent.fitness import TRACKING_SINCE
from backpoint_agent.machine import Machine, VirtualDisk
from backpoint_agent.running.disk_reading import QueryAreas
from backpoint_agent.running.outcome import Notes
from backpoint_agent.running.parts import RunParts
from backpoint_agent.transport.contract import OpenTransport
from backpoint_agent.vsphere.change_tracking import (
    Areas,
    TrackedSnapshot,
    query_changed_areas,
    set_change_tracking,
)
from backpoint_repo.errors import BackpointError


class Tracking:
    """Of one VM, for one run. state: off, on, "switched on" (by this run) or unavailable."""

    def __init__(self, parts: RunParts, machine: Machine, notes: Notes) -> None:
        self._parts = parts
        self._machine = machine
        self._notes = notes
        self.state = "off"

    def prepare(self) -> None:
        """Before the snapshot, whose stun makes it take effect. Raises as `run_task`."""
        policy, machine = self._parts.job.change_tracking.policy, self._machine
        if policy == "off":
            return
        if machine.template or not _can_track(machine):
            self.state = "unavailable"
        elif machine.change_tracking:
            self.state = "on"
        elif policy == "enable" and not machine.snapshots:
            self._parts.watcher.phase(machine.name, "switching change tracking on")
            self._set(on=True)
            self.state = "switched on"
        elif policy == "enable":
            self._notes.warn(
                "change tracking is off, and can be switched on without snapshots only"
            )

    def query(self, snapshot: str, transport: OpenTransport) -> tuple[QueryAreas | None, str]:
        """How to ask for changed areas, or None and why not."""
        if self.state in ("off", "unavailable"):
            return None, f"change tracking is {self.state}"
        if not transport.reads_ranges:
            return None, f"the transport {transport.name} reads whole disks only"
        parts = self._parts
        tracked = TrackedSnapshot(self._machine.moref, snapshot)

        def query(disk: VirtualDisk, since: str) -> Areas:
            return query_changed_areas(parts.vcenter, tracked, disk, since, parts.stop)

        return query, ""

    def reset(self) -> None:
        """Off and on: with the next snapshot, tracking begins anew. Raises nothing."""
        parts, machine = self._parts, self._machine
        try:
            effect = parts.ledger.intend(
                "change-tracking", parts.vcenter.uuid, machine.moref, machine.name, {}
            )
            self._set(on=False, despite_stop=True)
            self._set(on=True, despite_stop=True)
            parts.ledger.undone(effect, "switched on again")
            self._notes.alarm("change tracking was reset; the next backup reads everything")
        except ObjectGone:
            return
        except BackpointError as error:
            self._notes.alarm(f"change tracking could not be reset: {error}")

    def _set(self, *, on: bool, despite_stop: bool = False) -> None:
        set_change_tracking(
            self._parts.vcenter,
            self._machine.moref,
            on=on,
            limit_s=self._parts.waits.change_tracking_s,
            stop=None if despite_stop else self._parts.stop,
        )


def _can_track(machine: Machine) -> bool:
    return machine.hardware_version >= TRACKING_SINCE and machine.change_tracking_supported
