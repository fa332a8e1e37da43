"""What a point of the agent records of its making: for the next run, for restores, for the user.

Pure. The map that `Point.capture` holds; `tracked_disk.py`, `machine_names.py` and `restoring` read
it. Sizes in bytes, durations in seconds, times in seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from backpoint_agent.machine import Machine
from backpoint_agent.machine_names import capture_identity
from backpoint_agent.running.disk_reading import Reading
from backpoint_agent.running.frozen_guest import Frozen
from backpoint_agent.selection import SkippedDisk

VERSION: Final = 1


@dataclass(frozen=True)
class Making:
    """job: its name; transport and transport_note: as the transport says; tracking: on, off,
    switched on (by this run) or unavailable."""

    job: str
    transport: str
    transport_note: str
    tracking: str


def capture_of(
    machine: Machine,
    frozen: Frozen,
    readings: list[Reading],
    skipped: tuple[SkippedDisk, ...],
    making: Making,
) -> dict[str, Any]:
    """As JSON has it."""
    return {
        **capture_identity(machine),
        "version": VERSION,
        "moref": machine.moref,
        "datacenter": machine.datacenter,
        "folder": machine.folder,
        "pool": machine.pool,
        "host": machine.host,
        "cluster": machine.cluster,
        "power": machine.power,
        "guest_id": machine.guest_id,
        "guest_name": machine.guest_name,
        "vmx": machine.vmx,
        "job": making.job,
        "transport": making.transport,
        "transport_note": making.transport_note,
        "change_tracking": making.tracking,
        "current_snapshot": machine.current_snapshot,
        "snapshot": {
            "moref": frozen.snapshot,
            "consistency": frozen.consistency,
            "create_s": round(frozen.create_s, 3),
            "stun_s": frozen.stun_s,
        },
        "disks": {reading.disk.key: _disk(reading) for reading in readings},
        "left_out": [f"{item.disk.slot} {item.disk.label}: {item.reason}" for item in skipped],
    }


def _disk(reading: Reading) -> dict[str, Any]:
    disk = reading.disk
    return {
        "slot": disk.slot,
        "label": disk.label,
        "file": disk.file,
        "size": disk.size,
        "uuid": disk.disk_uuid,
        "object_id": disk.object_id,
        "mode": disk.mode,
        "change_id": disk.change_id,
        "how": reading.how,
        "why": reading.why,
        "audited": reading.audited,
        "full_at": reading.full_at,
    }
