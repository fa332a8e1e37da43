"""Which of a point's disks a .vmx means: it names files and places, a point counts its disks.

Decides by the place on the bus where the point knows it, else by the file's name, else by order.
Pure; what boots first is for `hardware.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backpoint_repo.point import Point

# web.vmdk, web-flat.vmdk and the snapshots' web-000001.vmdk and web-000001-delta.vmdk are one disk.
_ENDING: Final = re.compile(r"(-\d{6})?(-flat|-delta|-sesparse|-ctk)?(\.[A-Za-z0-9]{1,6})?$")


@dataclass(frozen=True)
class PointDisk:
    """number: in the point. place: "scsi0:1" where the point knows it. name: of the file it was
    read from, without folders."""

    number: int
    place: str = ""
    name: str = ""


@dataclass(frozen=True)
class NamedDisk:
    """As a .vmx has it. prefix: scsi, sata, ide or nvme."""

    prefix: str
    controller: int
    unit: int
    name: str

    @property
    def place(self) -> str:
        return f"{self.prefix}{self.controller}:{self.unit}"


def disks_of_point(point: Point, places: Mapping[str, str] | None = None) -> list[PointDisk]:
    """places: by the disks' keys, where a description knows more than the point itself."""
    known = places or {}
    return [
        PointDisk(
            number, _place(point.capture, disk.key) or known.get(disk.key, ""), _name(disk.source)
        )
        for number, disk in enumerate(point.disks)
    ]


def match_disks(
    named: Sequence[NamedDisk], disks: Sequence[PointDisk]
) -> tuple[dict[int, NamedDisk], tuple[str, ...]]:
    """Where the .vmx has each of the point's disks, by number; and notes where that is a guess."""
    matched: dict[int, NamedDisk] = {}
    left = list(named)
    for disk in disks:
        _take(matched, left, disk, [slot for slot in left if slot.place == disk.place])
    for disk in disks:
        if disk.number not in matched and disk.name:
            same = [slot for slot in left if _stem(slot.name) == _stem(disk.name)]
            _take(matched, left, disk, same)
    rest = [disk for disk in disks if disk.number not in matched]
    notes = []
    if rest and left and (len(rest) != len(left) or len(rest) > 1):
        notes.append(
            "the .vmx does not tell by name which disk is which: they are taken in its order"
        )
    for disk in rest:
        _take(matched, left, disk, left)
    return matched, tuple(notes)


def _take(
    matched: dict[int, NamedDisk],
    left: list[NamedDisk],
    disk: PointDisk,
    candidates: Sequence[NamedDisk],
) -> None:
    if candidates:
        matched[disk.number] = candidates[0]
        left.remove(candidates[0])


def _place(capture: Mapping[str, Any], key: str) -> str:
    disks = capture.get("disks")
    disk = disks.get(key) if isinstance(disks, dict) else None
    place = disk.get("slot") if isinstance(disk, dict) else None
    return place.lower() if isinstance(place, str) else ""


def _name(source: str) -> str:
    return re.split(r"[/\\]|\] ", source)[-1]


def _stem(name: str) -> str:
    return _ENDING.sub("", name)
