"""The points of a repository at one moment, arranged as a mount shows them: by VM and by day.

Decides the folder names of VMs and points, and which point is the newest. Immutable once built;
what only some readers need is worked out when they ask. Knows no inodes' roles and no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from backpoint_fusefs.file_names import distinct_names
from backpoint_fusefs.inodes import point_prefix, vm_prefix
from backpoint_repo.catalog import PointSummary
from backpoint_repo.point_selector import format_time

DAY_S: Final = 86400
_LAST_MOMENT: Final = 253402300799.0
"""The end of the year 9999; times come from agents, whose clocks may say anything."""


class Listing:
    """points: as the catalogue sorts them, by VM, time and creation.

    shadowed: points that are not shown because another one has their inode number; among a hundred
    thousand points this happens once in 50,000 repositories. Not thread-safe.
    """

    def __init__(self, points: Sequence[PointSummary]) -> None:
        self.points, self.shadowed = _without_shadowed(points)
        self.vms: dict[str, range] = {}
        start = 0
        for at, point in enumerate(self.points):
            if point.vm != self.points[start].vm:
                self.vms[self.points[start].vm] = range(start, at)
                start = at
        if self.points:
            self.vms[self.points[start].vm] = range(start, len(self.points))

    @cached_property
    def vm_names(self) -> dict[str, bytes]:
        """VM -> its folder's name."""
        return dict(zip(self.vms, distinct_names(self.vms, ()), strict=True))

    @cached_property
    def vm_by_name(self) -> dict[bytes, str]:
        """Folder name -> VM."""
        return {name: vm for vm, name in self.vm_names.items()}

    @cached_property
    def vm_by_prefix(self) -> dict[int, str]:
        """Inode prefix -> VM; of two VMs with one prefix the first by name."""
        return {vm_prefix(vm): vm for vm in reversed(self.vms)}

    @cached_property
    def by_prefix(self) -> dict[int, PointSummary]:
        """Inode prefix -> point."""
        return {point_prefix(point.point_id): point for point in self.points}

    @cached_property
    def days(self) -> dict[int, dict[str, PointSummary]]:
        """Day (since 1970, UTC) -> VM -> its newest point of that day."""
        days: dict[int, dict[str, PointSummary]] = {}
        for point in self.points:
            days.setdefault(day_of(point), {})[point.vm] = point
        return days

    def newest(self, vm: str) -> PointSummary:
        """Raises KeyError for an unknown VM."""
        return self.points[self.vms[vm][-1]]

    def of_vm(self, vm: str) -> list[tuple[bytes, PointSummary]]:
        """Every point of a VM with its folder's name. Raises KeyError."""
        return [(self._name_at(at), self.points[at]) for at in self.vms[vm]]

    def name_of(self, point: PointSummary) -> bytes:
        """The name of a point's folder. Raises KeyError where it is not listed."""
        return self._name_at(self._position(point))

    def find(self, vm: str, name: bytes) -> PointSummary | None:
        """The point of a VM whose folder has this name. Raises KeyError."""
        own = self.vms[vm]
        low, high = own.start, own.stop
        stem = name[:20]  # without the id of a point that shares its second
        while low < high:
            middle = (low + high) // 2
            if _stamp(self.points[middle]) < stem:
                low = middle + 1
            else:
                high = middle
        while low < own.stop and _stamp(self.points[low]) == stem:
            if self._name_at(low) == name:
                return self.points[low]
            low += 1
        return None

    def day_of_residue(self, vm: str, residue: int, modulus: int) -> int | None:
        """The newest day of a VM that leaves `residue`. Raises KeyError."""
        for at in reversed(self.vms[vm]):
            day = day_of(self.points[at])
            if day % modulus == residue:
                return day
        return None

    def _position(self, point: PointSummary) -> int:
        own = self.vms[point.vm]
        low, high = own.start, own.stop
        wanted = (point.time, point.created)
        while low < high:
            middle = (low + high) // 2
            if (self.points[middle].time, self.points[middle].created) < wanted:
                low = middle + 1
            else:
                high = middle
        while low < own.stop and self.points[low].point_id != point.point_id:
            low += 1
        if low == own.stop:
            raise KeyError(point.point_id)
        return low

    def _name_at(self, at: int) -> bytes:
        """The second; where an earlier point has it already, also the beginning of the id."""
        point, first = self.points[at], self.vms[self.points[at].vm].start
        stamp, digits = _stamp(point), point.point_id.hex()
        before = at - 1
        while before >= first and _stamp(self.points[before]) == stamp:
            if self.points[before].point_id.hex()[:8] == digits[:8]:
                return stamp + b"~" + digits.encode()
            before -= 1
        return stamp if before == at - 1 else stamp + b"~" + digits[:8].encode()


def moment_of(seconds: float) -> float:
    """A time that has a date: NaN and what lies before 1970 are 1970."""
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), _LAST_MOMENT)


def day_of(point: PointSummary) -> int:
    """Days since 1970, UTC."""
    return int(moment_of(point.time) // DAY_S)


def day_name(day: int) -> bytes:
    """`2026-11-20`."""
    return format_time(day * DAY_S)[:10].encode()


def changed_vms(before: Listing, after: Listing) -> set[str]:
    """VMs that have other points now."""
    return {point.vm for point in set(before.points) ^ set(after.points)}


def changed_names(before: Listing, after: Listing, vm: str) -> list[bytes]:
    """Names that are gone, or are another point's now: one of the same second lost its suffix."""
    now = dict(after.of_vm(vm)) if vm in after.vms else {}
    was = before.of_vm(vm) if vm in before.vms else []
    return [name for name, point in was if now.get(name) != point]


def _stamp(point: PointSummary) -> bytes:
    return format_time(moment_of(point.time)).encode()


def _without_shadowed(
    points: Sequence[PointSummary],
) -> tuple[list[PointSummary], list[PointSummary]]:
    prefixes = {point.point_id[:6] for point in points}
    if len(prefixes) == len(points):
        return list(points), []
    owners: dict[bytes, PointSummary] = {}
    for point in points:
        other = owners.setdefault(point.point_id[:6], point)
        if (point.created, point.point_id) < (other.created, other.point_id):
            owners[point.point_id[:6]] = point
    kept = [point for point in points if owners[point.point_id[:6]] is point]
    return kept, [point for point in points if owners[point.point_id[:6]] is not point]
