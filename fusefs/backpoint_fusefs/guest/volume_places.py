"""Where the bytes of a volume lie on the point's disks.

Pure arithmetic over a `Volume`'s pieces, exact to the byte. Also decides whether a Volume can be
true of disks of certain sizes: it comes from a worker that parses hostile bytes, so it is checked
before it is used. Knows no filesystem and reads nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.volume import Piece, Place, Volume

MIN_UNIT: Final = 4096
"""Bytes of a stripe unit, as for LVM2; of single bytes a read would be a million places."""


def places(volume: Volume, offset: int, length: int) -> list[Place]:
    """Of bytes [offset, offset + length), in their order, neighbours on a disk joined.

    Raises GuestDamaged for bytes that the volume does not have.
    """
    if offset < 0 or length < 0 or offset + length > volume.size:
        raise GuestDamaged(f"bytes {offset} to {offset + length} are outside {volume.name}")
    found: list[Place] = []
    end = offset + length
    at = bisect_right(volume.pieces, offset, key=lambda piece: piece.start) - 1
    while offset < end:
        if not 0 <= at < len(volume.pieces):
            raise GuestDamaged(f"byte {offset} of {volume.name} is on no disk")
        piece = volume.pieces[at]
        stop = min(end, piece.start + piece.length)
        if stop <= offset:
            raise GuestDamaged(f"byte {offset} of {volume.name} is on no disk")
        _add_places(found, piece, offset - piece.start, stop - offset)
        offset = stop
        at += 1
    return found


def check_volume(volume: Volume, disk_sizes: Sequence[int]) -> None:
    """Raises GuestDamaged where the pieces do not tile the volume or are not on the disks."""
    if not volume.pieces and volume.problem:
        return
    end = 0
    for piece in volume.pieces:
        if piece.start != end or piece.length <= 0:
            raise GuestDamaged(f"{volume.name} has a gap or an overlap at byte {end}")
        _check_piece(volume.name, piece, disk_sizes)
        end += piece.length
    if end != volume.size:
        raise GuestDamaged(f"{volume.name} has {volume.size} bytes, but pieces for {end}")


def _check_piece(name: str, piece: Piece, disk_sizes: Sequence[int]) -> None:
    if not piece.stripes or piece.unit <= 0:
        raise GuestDamaged(f"{name} has a piece without bytes on a disk")
    if len(piece.stripes) == 1 and piece.unit != piece.length:
        raise GuestDamaged(f"{name} has one stripe that is not linear")
    if len(piece.stripes) > 1 and piece.unit < MIN_UNIT:
        raise GuestDamaged(f"{name} has stripes that are too narrow")
    if piece.length % (piece.unit * len(piece.stripes)):
        raise GuestDamaged(f"{name} has stripes of unequal length")
    each = piece.length // len(piece.stripes)
    for disk, offset in piece.stripes:
        if not 0 <= disk < len(disk_sizes) or not 0 <= offset <= disk_sizes[disk] - each:
            raise GuestDamaged(f"{name} reaches beyond disk {disk}")


def _add_places(found: list[Place], piece: Piece, offset: int, length: int) -> None:
    while length:
        unit, within = divmod(offset, piece.unit)
        row, stripe = divmod(unit, len(piece.stripes))
        disk, start = piece.stripes[stripe]
        count = min(length, piece.unit - within)
        at = start + row * piece.unit + within
        if found and found[-1].disk == disk and found[-1].offset + found[-1].length == at:
            found[-1] = found[-1]._replace(length=found[-1].length + count)
        else:
            found.append(Place(disk, at, count))
        offset += count
        length -= count
