"""At which slot of the VM each disk of a point belongs. Pure.

What the agent recorded with the point comes first, then the names of the files the disks were read
from, then the order: a point of loose images says no more than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from backpoint_agent.live.vmx_plan import slots_of
from backpoint_agent.live.vmx_text import Vmx
from backpoint_agent.restoring.description import MachineDescription
from backpoint_repo.errors import UsageError
from backpoint_repo.point import Disk, Point

SLOT: Final = re.compile(r"(scsi|sata|nvme|ide)\d{1,2}:\d{1,3}")
_ON_SCSI: Final = [unit for unit in range(16) if unit != 7]
"""Unit 7 is the controller itself."""


def disks_by_slot(
    point: Point, stored: Vmx, description: MachineDescription | None
) -> dict[str, str]:
    """Descriptors in the point's folder by slot, every disk of the point once.

    Raises UsageError where there are more disks than slots to put them in.
    """
    placed: dict[str, int] = {}
    recorded = _recorded(point.capture, description)
    slots = slots_of(stored)
    for number, disk in enumerate(point.disks):
        _claim(placed, number, recorded.get(disk.key, ""))
    by_file = {_base_name(stored.get(f"{slot}.fileName")): slot for slot in slots}
    for number, disk in _left(point.disks, placed):
        _claim(placed, number, by_file.get(_base_name(disk.source), ""))
    free = (slot for slot in [*slots, *_more_slots(stored)] if slot not in placed)
    for number, disk in list(_left(point.disks, placed)):
        slot = next(free, None)
        if slot is None:
            raise UsageError(f"there is no slot left for the disk {disk.key}")
        placed[slot] = number
    return {slot: f"disk{number}.vmdk" for slot, number in placed.items()}


def _claim(placed: dict[str, int], number: int, slot: str) -> None:
    if SLOT.fullmatch(slot) and slot not in placed:
        placed[slot] = number


def _left(disks: Sequence[Disk], placed: Mapping[str, int]) -> Iterator[tuple[int, Disk]]:
    done = set(placed.values())
    yield from ((n, disk) for n, disk in enumerate(disks) if n not in done)


def _recorded(capture: Mapping[str, Any], description: MachineDescription | None) -> dict[str, str]:
    """Slots by the disks' keys in the point."""
    captured = capture.get("disks")
    found = {}
    for key, facts in captured.items() if isinstance(captured, Mapping) else ():
        slot = facts.get("slot") if isinstance(facts, Mapping) else None
        if isinstance(slot, str):
            found[str(key)] = slot
    if description is not None:
        found |= {f"disk-{disk.key}": disk.place for disk in description.disks if disk.place}
    return found


def _more_slots(stored: Vmx) -> Iterator[str]:
    """On SCSI controllers, those first that the .vmx has."""
    numbers = sorted(range(4), key=lambda bus: (not stored.is_true(f"scsi{bus}.present"), bus))
    taken = set(stored.names())
    for bus in numbers:
        for unit in _ON_SCSI:
            if f"scsi{bus}:{unit}.present" not in taken:
                yield f"scsi{bus}:{unit}"


def _base_name(path: str) -> str:
    """Of a descriptor; a flat file is known by its descriptor's name."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    return re.sub(r"(-flat)?\.(vmdk|img|raw)$", ".vmdk", name)
