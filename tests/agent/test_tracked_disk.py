"""When changed areas are believed: only where nothing whatever speaks against it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from backpoint_agent.machine import Identity
from backpoint_agent.tracked_disk import (
    DAY_S,
    ChangedReading,
    FullReading,
    Past,
    Present,
    plan_reading,
)
from some_machine import some_disk

EPOCH = "52 de c0 d9 b9 43 f9 bf-02 26 c0 2b 3e fe 3f 1c"
DISK = some_disk(change_id=f"{EPOCH}/9")
NOW = 1_700_000_000.0
PRESENT = Present(Identity("vc", "vm"), None, None, NOW)


def past(**changes: Any) -> Past:
    """The point before, whose record of the disk has these changes."""
    disk = {
        "size": DISK.size,
        "uuid": DISK.disk_uuid,
        "file": DISK.file,
        "object_id": DISK.object_id,
        "change_id": f"{EPOCH}/8",
        "full_at": NOW - 5 * DAY_S,
        **changes,
    }
    capture = {
        "kind": "vsphere",
        "instance": "vm",
        "current_snapshot": None,
        "disks": {DISK.key: disk},
    }
    return Past(capture, NOW - DAY_S)


def test_changed_areas_are_believed() -> None:
    """Since the parent's change id; when it was read in full is handed on."""
    assert plan_reading(DISK, past(), PRESENT) == ChangedReading(f"{EPOCH}/8", NOW - 5 * DAY_S)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": DISK.size - 512},
        {"uuid": "other"},
        {"file": "[ds1] web/web_0-000004.vmdk"},
        {"object_id": "other"},
        {"change_id": None},
        {"change_id": "52 aa/8"},
        {"change_id": f"{EPOCH}/10"},
        {"change_id": f"{EPOCH}/x"},
        {"change_id": f"{EPOCH}"},
        {"change_id": 8},
    ],
)
def test_a_disk_that_differs_is_read_in_full(changes: dict[str, Any]) -> None:
    """And the user hears why."""
    planned = plan_reading(DISK, past(**changes), PRESENT)
    assert isinstance(planned, FullReading)
    assert not planned.expected
    assert planned.reason


def test_what_is_expected_is_no_warning() -> None:
    """A first backup, a point that the agent did not make, a new disk."""
    others = past()
    other = Past({**others.capture, "kind": "image"}, others.time)
    new = Past({**others.capture, "disks": {}}, others.time)
    odd = Past({**others.capture, "disks": [1]}, others.time)
    for before in (None, other, new, odd):
        planned = plan_reading(DISK, before, PRESENT)
        assert isinstance(planned, FullReading)
        assert planned.expected


def test_another_machine_is_not_a_parent() -> None:
    """Although it has the same name in the repository."""
    before = past()
    foreign = Past({**before.capture, "instance": "another"}, before.time)
    assert isinstance(plan_reading(DISK, foreign, PRESENT), FullReading)


def test_a_reverted_machine_is_read_in_full() -> None:
    """Its current snapshot is not the one of the point before."""
    reverted = dataclasses.replace(PRESENT, current_snapshot="snapshot-7")
    assert isinstance(plan_reading(DISK, past(), reverted), FullReading)


def test_no_change_id_no_increment() -> None:
    """Change tracking is off, or lost."""
    planned = plan_reading(dataclasses.replace(DISK, change_id=None), past(), PRESENT)
    assert isinstance(planned, FullReading)


def test_a_full_now_and_then() -> None:
    """After as many days as the job says, also where the clock went back meanwhile."""
    weekly = dataclasses.replace(PRESENT, full_after_s=7 * DAY_S)
    assert isinstance(plan_reading(DISK, past(), weekly), ChangedReading)
    for full_at in (NOW - 8 * DAY_S, NOW + DAY_S, None):
        planned = plan_reading(DISK, past(full_at=full_at), weekly)
        assert isinstance(planned, FullReading)
        assert planned.expected
