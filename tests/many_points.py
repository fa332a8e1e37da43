"""A repository with very many restore points, made in seconds, for benchmarks and tests of listing.

All points share one disk map (an empty disk), so only the catalogue is large. Knows no mount.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Final

from backpoint_repo.catalog import summarize
from backpoint_repo.format import HOLE, Kind
from backpoint_repo.point import POINT_ID_SIZE, Disk, Point
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository

_FIRST: Final = 1767225600.0
"""2026-01-01 00:00:00 UTC."""
_APART_S: Final = 3600.0
_DISK_SIZE: Final = 1 << 30
_PER_OBJECT: Final = 10_000
"""Points in one catalogue object; writers make them this large when they merge."""


def make_many_points(repository: Repository, vms: int, points_per_vm: int) -> None:
    """Put `points_per_vm` hourly points of each of `vms` VMs, with their catalogue objects."""
    points = (_point(vm, at) for vm in range(vms) for at in range(points_per_vm))
    while batch := list(itertools.islice(points, _PER_OBJECT)):
        for point in batch:
            repository.sealed.put(Kind.POINT, point.point_id.hex(), point.encode())
        rows = [list(summarize(point)) for point in batch]
        name = secrets.token_hex(16)
        repository.sealed.put(Kind.CATALOG, name, encode_record({"points": rows}))


def _point(vm: int, at: int) -> Point:
    time = _FIRST + at * _APART_S
    disk = Disk("disk0", _DISK_SIZE, HOLE, 0, "made")
    own_id = secrets.token_bytes(POINT_ID_SIZE)
    return Point(own_id, f"vm{vm:05}", time, time + 60, "", (disk,), generation=at)
