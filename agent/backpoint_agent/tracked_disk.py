"""Whether a disk can be read by its changed areas alone, or must be read in full, and why.

Pure: compares what the snapshot shows of a disk with what the parent point recorded of it. Any
doubt is a full; since content is stored once, a full costs reading and nothing else.
Sources of the rules: change ids, VMware VDDK guide; revert, resets and growth, Broadcom KB 310751,
317933, 432633.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backpoint_agent.machine import Identity, VirtualDisk

DAY_S = 86_400.0


@dataclass(frozen=True)
class Past:
    """What the parent point says. capture: its record; time: when it was published, seconds since
    1970. None in its place: there is no parent."""

    capture: dict[str, Any]
    time: float


@dataclass(frozen=True)
class Present:
    """What is known of the VM now. current_snapshot: the user's, before ours was made.
    full_after_s: None where change tracking may be believed for ever. now: seconds since 1970."""

    identity: Identity
    current_snapshot: str | None
    full_after_s: float | None
    now: float


@dataclass(frozen=True)
class FullReading:
    """reason: one phrase for the point and the user. expected: nothing is wrong (first backup)."""

    reason: str
    expected: bool


@dataclass(frozen=True)
class ChangedReading:
    """since: the parent's change id. full_at: when the disk was last read in full."""

    since: str
    full_at: float


def plan_reading(
    disk: VirtualDisk, past: Past | None, present: Present
) -> FullReading | ChangedReading:
    """How to read a disk of which change tracking may be used."""
    if past is None:
        return FullReading("the first backup of this VM", expected=True)
    if past.capture.get("kind") != "vsphere":
        return FullReading("the point before was not made by the agent", expected=True)
    if past.capture.get("instance") != present.identity.instance:
        return FullReading("the point before is of another VM", expected=False)
    before = _disk_before(past.capture, disk.key)
    if before is None:
        return FullReading("the point before does not hold this disk", expected=True)
    if disk.change_id is None:
        return FullReading("change tracking gave no change id", expected=False)
    doubt = _doubt(disk, before) or _reverted(past.capture, present)
    if doubt:
        return FullReading(doubt, expected=False)
    full_at = before.get("full_at")
    if not isinstance(full_at, int | float):
        full_at = 0.0
    if present.full_after_s is not None and not 0 <= present.now - full_at < present.full_after_s:
        days = present.full_after_s / DAY_S
        return FullReading(f"everything is read again every {days:g} days", expected=True)
    return ChangedReading(str(before["change_id"]), float(full_at))


def _disk_before(capture: dict[str, Any], key: str) -> dict[str, Any] | None:
    disks = capture.get("disks")
    before = disks.get(key) if isinstance(disks, dict) else None
    return before if isinstance(before, dict) else None


def _doubt(disk: VirtualDisk, before: dict[str, Any]) -> str | None:
    assert disk.change_id is not None
    for name, what, now in (
        ("size", "its size", disk.size),
        ("uuid", "its disk uuid", disk.disk_uuid),
        # A revert to the snapshot that is current already shows in nothing but a new delta file.
        ("file", "its file", disk.file),
        ("object_id", "its object id", disk.object_id),
    ):
        if before.get(name) != now:
            return f"{what} changed from {before.get(name)!r} to {now!r}"
    change_id = before.get("change_id")
    if not isinstance(change_id, str):
        return "the point before has no change id"
    epoch, number = _parts(change_id)
    epoch_now, number_now = _parts(disk.change_id)
    if epoch != epoch_now:
        return "change tracking was reset since the point before"
    if number is None or number_now is None:
        return f"the change ids {change_id!r} and {disk.change_id!r} cannot be compared"
    if number_now < number:
        return "change tracking went back since the point before: the VM was reverted"
    return None


def _reverted(capture: dict[str, Any], present: Present) -> str | None:
    if capture.get("current_snapshot") != present.current_snapshot:
        return "the VM's current snapshot is another one than at the point before"
    return None


def _parts(change_id: str) -> tuple[str, int | None]:
    """ "52 de ... /7" as its uuid and its number."""
    epoch, _, number = change_id.rpartition("/")
    return epoch.strip(), int(number) if number.isascii() and number.isdigit() else None
