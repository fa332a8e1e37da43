"""Where the bytes of logical volumes are on the disks.

Linear and striped segments, mirrors by one complete leg, and logical volumes made of hidden ones.
Every other type (thin, cache, parity RAID, ...) raises GuestUnsupported with its name: its bytes
are not simply somewhere. Bounded in depth and in the number of pieces of a whole group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported
from backpoint_fusefs.guest.parsers.layout.lvm_group import (
    Area,
    LogicalVolume,
    Segment,
    VolumeGroup,
)
from backpoint_fusefs.guest.parsers.layout.lvm_leg import Leg, best_leg
from backpoint_fusefs.guest.parsers.layout.stretch import Stretch
from backpoint_fusefs.guest.volume import Piece
from backpoint_fusefs.guest.volume_places import MIN_UNIT
from backpoint_fusefs.guest.volume_record import MAX_PIECES

_MAX_DEPTH = 6
_MAX_GROUP_PIECES = 4 * MAX_PIECES
_MAX_SIZE = 1 << 60
_LINEAR = ("linear", "striped")
_RAID0 = ("raid0", "raid0_meta")


class _Run(NamedTuple):
    """`length` bytes at `offset` of disk number `disk`."""

    disk: int
    offset: int
    length: int


class GroupMapping:
    """stretches: UUID of a physical volume -> where that is, for those that were found."""

    def __init__(self, group: VolumeGroup, stretches: Mapping[str, Stretch]) -> None:
        self._group = group
        self._stretches = stretches
        self._pieces: dict[str, tuple[Piece, ...]] = {}
        self._budget = _MAX_GROUP_PIECES

    def size(self, volume: LogicalVolume) -> int:
        """Bytes. Raises GuestDamaged for more than there can be."""
        size = volume.extents * self._group.extent
        if not 0 < size < _MAX_SIZE:
            raise GuestDamaged(f"the logical volume {volume.name} has an impossible size")
        return size

    def pieces(self, volume: LogicalVolume, depth: int = 0) -> tuple[Piece, ...]:
        """Raises GuestUnsupported or GuestDamaged where the bytes cannot be found."""
        if volume.name in self._pieces:
            return self._pieces[volume.name]
        if depth > _MAX_DEPTH:
            raise GuestDamaged(f"the logical volume {volume.name} is made of too many others")
        self.size(volume)
        found: list[Piece] = []
        for segment in volume.segments:
            for piece in self._segment(segment, depth):
                _append(found, piece)
                if len(found) > MAX_PIECES:
                    raise GuestDamaged(f"the logical volume {volume.name} is in too many pieces")
        self._spend(len(found))
        self._pieces[volume.name] = tuple(found)
        return self._pieces[volume.name]

    def _segment(self, segment: Segment, depth: int) -> list[Piece]:
        if segment.type in _LINEAR or segment.type in _RAID0:
            areas = segment.areas[1::2] if segment.type == "raid0_meta" else segment.areas
            return self._striped(segment, areas, depth)
        if segment.type == "mirror" and segment.areas:
            # The first leg is the one that the others are copied from.
            return self._striped(segment, segment.areas[:1], depth)
        if segment.type == "raid1":
            return self._raid1(segment, depth)
        raise GuestUnsupported(f"a logical volume of the type {segment.type}, which is not read")

    def _striped(self, segment: Segment, areas: Sequence[Area], depth: int) -> list[Piece]:
        if not areas or segment.count % len(areas):
            raise GuestDamaged("a segment of a logical volume has impossible stripes")
        start, each = self._bytes(segment.start), self._bytes(segment.count // len(areas))
        stripes = [self._runs(area, each, depth) for area in areas]
        if len(areas) == 1:
            return _linear(start, stripes[0])
        if segment.stripe < MIN_UNIT:
            raise GuestDamaged("a striped logical volume does not say how wide its stripes are")
        return _interleaved(start, stripes, segment.stripe)

    def _raid1(self, segment: Segment, depth: int) -> list[Piece]:
        """Pairs of a leg's notes (which of the legs are in step) and the leg itself."""
        length = self._bytes(segment.count)
        legs: list[Leg[list[_Run]]] = []
        missing: GuestDamaged | None = None
        for notes, image in zip(segment.areas[::2], segment.areas[1::2], strict=False):
            volume = self._group.logical.get(image.name)
            if volume is None or "REBUILD" in volume.flags:
                continue
            try:
                runs = self._runs(image, length, depth)
                at = self._runs(notes, self._group.extent, depth)[0]
            except GuestDamaged as damage:
                missing = damage
                continue
            legs.append(Leg(len(legs), runs, self._read(at, 64)))
        if not legs:
            raise missing or GuestDamaged("a mirrored logical volume has no complete leg")
        return _linear(self._bytes(segment.start), best_leg(legs).runs)

    def _runs(self, area: Area, length: int, depth: int) -> list[_Run]:
        """Where the first `length` bytes of an area are."""
        offset = self._bytes(area.extent)
        entry = self._group.physical.get(area.name)
        if entry is not None:
            stretch = self._stretches.get(entry.uuid)
            if entry.missing or stretch is None:
                raise GuestDamaged(
                    f"its physical volume {entry.uuid} is missing from this VM's disks"
                )
            at = entry.start + offset
            if at > stretch.size - length:
                raise GuestDamaged(f"it reaches beyond the end of physical volume {entry.uuid}")
            return [_Run(stretch.disk, stretch.start + at, length)]
        volume = self._group.logical.get(area.name)
        if volume is None:
            raise GuestDamaged(f"it lies on {area.name or 'a part'}, which does not exist")
        runs = _cut(self.pieces(volume, depth + 1), offset, length)
        self._spend(len(runs))
        return runs

    def _read(self, run: _Run, length: int) -> bytes:
        for stretch in self._stretches.values():
            if stretch.disk == run.disk and 0 <= run.offset - stretch.start < stretch.size:
                return stretch.read(run.offset - stretch.start, length)
        return b""

    def _bytes(self, extents: int) -> int:
        return extents * self._group.extent

    def _spend(self, pieces: int) -> None:
        self._budget -= pieces
        if self._budget < 0:
            raise GuestDamaged("the logical volumes of its group are in too many pieces")


def _linear(start: int, runs: Sequence[_Run]) -> list[Piece]:
    pieces = []
    for run in runs:
        pieces.append(Piece(start, run.length, run.length, ((run.disk, run.offset),)))
        start += run.length
    return pieces


def _interleaved(start: int, stripes: Sequence[Sequence[_Run]], unit: int) -> list[Piece]:
    """One piece for each part in which no stripe goes from one run to another."""
    ends = {end for runs in stripes for end in accumulate(run.length for run in runs)}
    cursors = [0] * len(stripes)
    within = [0] * len(stripes)
    pieces = []
    before = 0
    for end in sorted(ends):
        length = end - before
        if length % unit:
            raise GuestUnsupported("its stripes are cut at odd places")
        row = []
        for number, runs in enumerate(stripes):
            run = runs[cursors[number]]
            row.append((run.disk, run.offset + within[number]))
            within[number] += length
            if within[number] == run.length:
                cursors[number] += 1
                within[number] = 0
        pieces.append(Piece(start + before * len(stripes), length * len(stripes), unit, tuple(row)))
        before = end
    return pieces


def _cut(pieces: Sequence[Piece], offset: int, length: int) -> list[_Run]:
    """Linear pieces only: who has stripes of stripes is not guessed at."""
    runs = []
    end = offset + length
    for piece in pieces:
        first, last = max(offset, piece.start), min(end, piece.start + piece.length)
        if first >= last:
            continue
        if len(piece.stripes) != 1:
            raise GuestUnsupported("it is made of striped logical volumes, which is not read")
        disk, at = piece.stripes[0]
        runs.append(_Run(disk, at + first - piece.start, last - first))
    if sum(run.length for run in runs) != length:
        raise GuestDamaged("it reaches beyond the end of a logical volume that it is made of")
    return runs


def _append(pieces: list[Piece], piece: Piece) -> None:
    """Joined with the one before, where both are linear and neighbours."""
    if pieces and len(piece.stripes) == len(pieces[-1].stripes) == 1:
        before = pieces[-1]
        (disk, at), (next_disk, next_at) = before.stripes[0], piece.stripes[0]
        if disk == next_disk and at + before.length == next_at:
            length = before.length + piece.length
            pieces[-1] = Piece(before.start, length, length, before.stripes)
            return
    pieces.append(piece)
