"""Which leg of an LVM2 mirror to believe.

From the notes that the kernel keeps beside each leg (struct dm_raid_superblock of
drivers/md/dm-raid.c): who has failed, and who is still being filled. Knows no volume group.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from backpoint_fusefs.guest.filesystem import GuestDamaged

_MAGIC = 0x64526D44
_NOTES = struct.Struct("<IIIIQQQQ")
_RECOVERED = (1 << 64) - 1

Runs = TypeVar("Runs")


@dataclass(frozen=True, slots=True)
class Leg(Generic[Runs]):
    """position: among the legs that can be read. notes: the first bytes beside it."""

    position: int
    runs: Runs
    notes: bytes


def best_leg(legs: Sequence[Leg[Runs]]) -> Leg[Runs]:
    """The first without a fault, in the view of those who know most. Raises GuestDamaged."""
    known = {
        leg.position: _NOTES.unpack_from(leg.notes)
        for leg in legs
        if len(leg.notes) >= _NOTES.size and _NOTES.unpack_from(leg.notes)[0] == _MAGIC
    }
    if not known:
        # Never activated since it was made.
        return legs[0]
    newest = max(notes[4] for notes in known.values())
    failed = 0
    for notes in known.values():
        if notes[4] == newest:
            failed |= notes[5]
    for leg in legs:
        if leg.position not in known:
            continue
        notes = known[leg.position]
        if notes[4] != newest or notes[6] != _RECOVERED:
            continue
        if notes[3] < 64 and not failed >> notes[3] & 1:
            return leg
    raise GuestDamaged("no leg of a mirrored logical volume is complete")
