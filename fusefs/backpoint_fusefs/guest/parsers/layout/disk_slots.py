"""The places on one disk where volumes may be: its partitions, or the whole of it.

Decides what counts as a disk without partitions, and what is said of a place that holds no files.
"""

from __future__ import annotations

from backpoint_fusefs.guest.filesystem import VolumeImage
from backpoint_fusefs.guest.parsers.layout.partition import (
    IF_NOTHING_ELSE,
    RAID_TYPES,
    WITHOUT_FILES,
    Partition,
    PartitionTable,
)
from backpoint_fusefs.guest.parsers.layout.partition_table import read_table
from backpoint_fusefs.guest.parsers.layout.probe import HEAD_SIZE, Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature
from backpoint_fusefs.guest.parsers.layout.signatures import identify
from backpoint_fusefs.guest.parsers.layout.slot import (
    Slot,
    disk_name,
    partition_name,
)
from backpoint_fusefs.guest.parsers.layout.stretch import Stretch

_MIB = 1 << 20
_NOTHING = "holds no partition table and no filesystem that is known"


def disk_slots(number: int, disk: VolumeImage, limit: int) -> list[Slot]:
    """At most `limit` of them."""
    stretch = Stretch(number, disk, 0, disk.size)
    probe = Probe(stretch)
    table = read_table(probe)
    slots = [_of_partition(number, disk, part) for part in table.partitions[:limit]]
    if any(slot.signature.kind not in ("", "extended") for slot in slots):
        return slots
    # A table with nothing in it that is known, or none: perhaps an accident in the first sector.
    whole = identify(probe, expect_raid=True)
    if whole.kind or not slots:
        problem = "" if whole.kind else _why_nothing(probe, table)
        return [Slot(disk_name(number), stretch, probe, whole, problem=problem)]
    return slots


def _of_partition(number: int, disk: VolumeImage, part: Partition) -> Slot:
    stretch = Stretch(number, disk, min(part.start, disk.size), part.size)
    probe = Probe(stretch)
    problem = ""
    if not stretch.size:
        signature = Signature()
        problem = "begins beyond the end of the disk"
    elif part.type in WITHOUT_FILES:
        signature = Signature(WITHOUT_FILES[part.type])
    else:
        named = part.type in IF_NOTHING_ELSE
        signature = identify(probe, expect_raid=part.type in RAID_TYPES, look_far=not named)
        if not signature.kind and named:
            signature = Signature(IF_NOTHING_ELSE[part.type])
        elif not signature.kind and not any(probe.head):
            problem = (
                f"holds no filesystem that is known: its first {HEAD_SIZE >> 10} KiB are zeros"
            )
    return Slot(
        partition_name(number, part),
        stretch,
        probe,
        signature,
        (),
        part.uuid,
        part.label,
        problem,
    )


def _why_nothing(probe: Probe, table: PartitionTable) -> str:
    if table.problem:
        return table.problem
    if table.scheme:
        return f"its {table.scheme} partition table lists no partition"
    if not any(probe.head) and not any(probe.read(0, _MIB)):
        return f"{_NOTHING}: its first MiB is all zeros"
    return _NOTHING
