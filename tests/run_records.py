"""Runs of jobs made of nothing but facts, and configurations for them.

Decides figures that are plausible and nothing else: whoever needs another one says so.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.running.outcome import DiskOutcome, MachineOutcome
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import examine_settings
from backpoint_agent.state_folder import StateFolder, make_state_folder
from config_text import VALID
from some_machine import VCENTER

NIGHT = 1_790_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR
GIB = 1 << 30


def identity_of(vm: str) -> str:
    """Of the one VM that has this name."""
    return f"{VCENTER}/{uuid.uuid5(uuid.NAMESPACE_OID, ascii(vm))}"


def some_outcome(vm: str = "web01", at: float = NIGHT, **changes: Any) -> MachineOutcome:
    """A VM whose point of the time `at` was made."""
    made = MachineOutcome(
        vm=vm,
        moref=f"vm-{vm}",
        identity=identity_of(vm),
        stored_as=vm,
        status="done",
        started=at,
        ended=at + 60,
        point=uuid.uuid5(uuid.NAMESPACE_OID, f"{vm!a} {at}").hex,
        point_time=at,
        consistency="filesystem",
        transport="https",
        disks=(DiskOutcome("disk-2000", "scsi0:0", 4 * GIB, "changed", "", 65536),),
        size=4 * GIB,
        read=1 << 20,
        new=1 << 19,
        stored=1 << 18,
        snapshot_create_s=1.5,
        snapshot_remove_s=2.5,
        stun_create_s=0.25,
        stun_remove_s=None,
    )
    return replace(made, **changes)


def failed_outcome(vm: str = "web01", at: float = NIGHT, **changes: Any) -> MachineOutcome:
    """A VM without a point."""
    nothing: dict[str, Any] = {"point": "", "point_time": None, "disks": (), "stored_as": ""}
    nothing |= {
        "size": 0,
        "read": 0,
        "new": 0,
        "stored": 0,
        "status": "failed",
        "error": "it broke",
    }
    return some_outcome(vm, at, **(nothing | changes))


def full_outcome(vm: str = "web01", at: float = NIGHT, **changes: Any) -> MachineOutcome:
    """All of its disk was read."""
    disks = (DiskOutcome("disk-2000", "scsi0:0", 4 * GIB, "full", "no point yet", 0),)
    return some_outcome(vm, at, **({"disks": disks} | changes))


def some_run(*outcomes: MachineOutcome, at: float = NIGHT, **changes: Any) -> RunRecord:
    """A run that began at `at`."""
    number = f"{int(at)}-{uuid.uuid4().hex[:6]}"
    run = RunRecord(number, "nightly", "main", at, at + 100, outcomes)
    return replace(run, **changes)


def settings_in(folder: Path, more: str = "") -> Settings:
    """The valid configuration with its state and repository in `folder`; more: lines behind the
    job's."""
    text = VALID.replace("/srv/backpoint", "repository") + more
    found = examine_settings(f'state = "state"\n{text}', folder)
    assert isinstance(found, Settings), found
    return found


def state_of(settings: Settings) -> StateFolder:
    """Made where it is missing."""
    return make_state_folder(settings.state)
