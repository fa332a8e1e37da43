"""Whether a file's content is the same in two points.

Decides by where its bytes lie: what is at the same place of disks that do not differ there is not
read. Blocks.
"""

from __future__ import annotations

from typing import Final

from backpoint_fusefs.guest.comparing.changed_places import ChangedPlaces
from backpoint_fusefs.guest.file_pieces import parts_of, read_part
from backpoint_fusefs.guest.filesystem import HOLE, Extent
from backpoint_fusefs.guest.guest_tree import Found
from backpoint_fusefs.guest.mapped_content import ExtentMap, zeros

_PART: Final = 1 << 20


def content_differs(old: Found, new: Found, changed: ChangedPlaces) -> bool:
    """Of regular files. Raises GuestError, and what reading the disks raises."""
    if old.stat.size != new.stat.size:
        return True
    there = ExtentMap(new.on.extents(new.stat))
    for part in parts_of(old.on.extents(old.stat), _PART):
        for opposite in parts_of(there.parts(part.offset, part.offset + part.length), _PART):
            shift = opposite.offset - part.offset
            at = part.at + shift if part.at >= 0 else part.at
            own = Extent(opposite.offset, opposite.length, at)
            if _differs(old, own, new, opposite, changed):
                return True
    return False


def _differs(old: Found, one: Extent, new: Found, other: Extent, changed: ChangedPlaces) -> bool:
    """Two parts of the same length."""
    if one.at == other.at == HOLE:
        return False
    if one.at >= 0 and other.at >= 0:
        places = (old.on.volume, one.at), (new.on.volume, other.at)
        if changed.same_bytes(*places, one.length):
            return False
    return _content(old, one) != _content(new, other)


def _content(found: Found, part: Extent) -> bytes | memoryview:
    return zeros(part.length) if part.at == HOLE else read_part(found.on, found.stat, part)
