"""Every volume on a VM's disks.

Disks, then partitions, then the mirrors made of them, then the logical volumes on all of these.
Decides that nothing is silently absent: what cannot be read is there with the reason; only the
parts of something that is shown itself (a mirror's members, a volume group's disks) are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from backpoint_fusefs.guest.filesystem import VolumeImage
from backpoint_fusefs.guest.parsers.layout.disk_slots import disk_slots
from backpoint_fusefs.guest.parsers.layout.lvm_groups import logical_volumes
from backpoint_fusefs.guest.parsers.layout.md_arrays import with_mirrors
from backpoint_fusefs.guest.parsers.layout.slot import Slot
from backpoint_fusefs.guest.parsers.layout.unread_kinds import UNREAD
from backpoint_fusefs.guest.volume import Volume

MAX_VOLUMES: Final = 1024
_MAX_NAME = 255


def find_volumes(disks: Sequence[VolumeImage]) -> list[Volume]:
    """In the order of the disks, logical volumes last; their names are distinct.

    Of more than 1,024 the rest is left out: no such VM is known, and each costs reads.
    """
    slots: list[Slot] = []
    for number, disk in enumerate(disks):
        slots += disk_slots(number, disk, MAX_VOLUMES - len(slots))
    slots = with_mirrors(slots[:MAX_VOLUMES])
    names = _distinct(slot.name for slot in slots)
    slots = [replace(slot, name=name) for slot, name in zip(slots, names, strict=True)]
    physical = [slot for slot in slots if slot.signature.kind == "lvm2"]
    shown_anyway, logical = logical_volumes(physical, disks, MAX_VOLUMES)
    found = []
    for slot in slots:
        if slot.signature.kind != "lvm2":
            found.append(slot.volume(_problem(slot)))
        elif slot.name in shown_anyway:
            found.append(slot.volume(shown_anyway[slot.name]))
    found = [*found, *logical][:MAX_VOLUMES]
    names = _distinct(volume.name for volume in found)
    return [replace(volume, name=name) for volume, name in zip(found, names, strict=True)]


def _problem(slot: Slot) -> str:
    return slot.problem or slot.signature.problem or UNREAD.get(slot.signature.kind, "")


def _distinct(names: Iterable[str]) -> list[str]:
    """The second of one name is name~2: of two volume groups with one name, or of one whose name
    and volume are called as a disk and partition are."""
    count: dict[str, int] = {}
    taken: set[str] = set()
    distinct = []
    for name in names:
        given = name[:_MAX_NAME]
        while given in taken:
            count[name] = count.get(name, 1) + 1
            given = f"{name[: _MAX_NAME - 6]}~{count[name]}"
        taken.add(given)
        distinct.append(given)
    return distinct
