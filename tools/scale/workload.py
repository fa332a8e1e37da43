"""What is assumed of a fleet, and how many objects and bytes a repository of it has.

Arithmetic only. Sizes that the format fixes are taken from it; what a guest does to its disks is a
parameter, and a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from backpoint_repo.catalog_merge import COMPACT_AFTER, MERGE_AFTER, ROWS_MAX
from backpoint_repo.format import FANOUT, ID_SIZE, LEAF_BLOCKS
from backpoint_repo.index import SEGMENT_ENTRIES_MAX
from backpoint_repo.lease import REFRESH_S
from backpoint_repo.pack import PACK_SIZE

LEAF_BYTES: Final = LEAF_BLOCKS * 4096
PAGE: Final = 1000
"""Keys in one answer to a listing."""
ENTRY: Final = ID_SIZE + 3 * 4
"""Bytes of a segment for each blob."""
CATALOG_ROW: Final = 100
"""Bytes stored of a point's row; about what compresses to that."""


@dataclass(frozen=True)
class Workload:
    """logical: bytes in use on all disks together. kept: daily points of each VM. changed: share of
    it that is new each day. unique: share of the first backup that no other VM has. sealed: bytes
    stored for one of content. touched: share of the map's leaves that a day's changes lie in.
    chunk: mean bytes. backup_s: seconds of one backup. append_only: agents may not delete, and a
    collection each day clears up. repositories: the fleet is divided among so many."""

    logical: int = 1 << 50
    vms: int = 10_000
    kept: int = 30
    changed: float = 0.01
    unique: float = 0.5
    sealed: float = 0.65
    touched: float = 0.1
    chunk: int = 64 << 10
    pack: int = PACK_SIZE
    backup_s: float = 600.0
    append_only: bool = True
    repositories: int = 1

    def of_one(self) -> Workload:
        """One of the repositories, alone."""
        each = self.repositories
        return replace(
            self,
            logical=self.logical // each,
            vms=math.ceil(self.vms / each),
            repositories=1,
        )


@dataclass(frozen=True)
class Contents:
    """Of one repository in its steady state. Sizes in bytes; `_day`: what a day's backups add."""

    chunks: int
    data: int
    packs: int
    node_data: int
    node_packs: int
    nodes: int
    segments: int
    index: int
    points: int
    catalog: int
    leases: int
    packs_day: int
    node_packs_day: int

    @property
    def objects(self) -> int:
        """All of them."""
        listed = (self.packs, self.node_packs, self.segments, self.points, self.catalog)
        return sum(listed) + self.leases

    @property
    def stored(self) -> int:
        """Bytes of what is stored in large."""
        return self.data + self.node_data + self.index + self.points * (1000 + CATALOG_ROW)


def contents(fleet: Workload) -> Contents:
    """fleet: as of one repository."""
    first = fleet.logical * fleet.unique
    day = fleet.logical * fleet.changed
    data_day = day * fleet.sealed
    data = (first + day * (fleet.kept - 1)) * fleet.sealed
    chunks = math.ceil((first + day * (fleet.kept - 1)) / fleet.chunk)
    node_day = fleet.touched * _map_bytes(fleet)
    node_data = _map_bytes(fleet) + node_day * (fleet.kept - 1)
    nodes = math.ceil(_leaves(fleet) * (1 + fleet.touched * (fleet.kept - 1)))
    points = fleet.vms * fleet.kept
    entries = chunks + nodes
    # A session ends its last pack of each kind wherever that is.
    packs_day = math.ceil(data_day / fleet.pack) + fleet.vms // 2
    node_packs_day = math.ceil(node_day / fleet.pack) + fleet.vms // 2
    return Contents(
        chunks=chunks,
        data=math.ceil(data),
        packs=math.ceil(first * fleet.sealed / fleet.pack) + packs_day * fleet.kept,
        node_data=math.ceil(node_data),
        node_packs=math.ceil(_map_bytes(fleet) / fleet.pack) + node_packs_day * fleet.kept,
        nodes=nodes,
        segments=math.ceil(entries / SEGMENT_ENTRIES_MAX) + (fleet.vms if fleet.append_only else 8),
        index=entries * ENTRY,
        points=points,
        catalog=_catalog_objects(points),
        leases=leases_of_a_day(fleet) if fleet.append_only else 0,
        packs_day=packs_day,
        node_packs_day=node_packs_day,
    )


def leases_of_a_day(fleet: Workload) -> int:
    """Lease objects that a day's backups put: two each, and one for each refresh."""
    return fleet.vms * (2 + int(fleet.backup_s // REFRESH_S))


def pages(keys: int) -> int:
    """Requests that list so many keys; none is a request, too."""
    return max(1, math.ceil(keys / PAGE))


def _leaves(fleet: Workload) -> int:
    return math.ceil(fleet.logical / LEAF_BYTES)


def _map_bytes(fleet: Workload) -> int:
    """Of all maps once: a leaf has two bytes and an id for each chunk. Ids do not compress."""
    entries = math.ceil(fleet.logical / fleet.chunk)
    inner = math.ceil(_leaves(fleet) / (FANOUT - 1))
    return entries * (2 + ID_SIZE) + _leaves(fleet) * 8 + inner * FANOUT * (8 + ID_SIZE)


def _catalog_objects(points: int) -> int:
    """Up to one less than what is merged on each level, and large ones."""
    levels, size = 0, COMPACT_AFTER + 1
    while size * 2 <= min(points, ROWS_MAX):
        levels, size = levels + 1, size * MERGE_AFTER
    return math.ceil(2 * points / ROWS_MAX) + levels * (MERGE_AFTER - 1)
