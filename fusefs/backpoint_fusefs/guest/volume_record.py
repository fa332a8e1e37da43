"""A Volume as plain values that cross from the sandboxed worker into the mount.

Decides what a worker may say: `from_record` believes no type, no length and no name. Whether the
pieces fit the disks is `volume_places.check_volume`'s to say.
"""

from __future__ import annotations

from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.volume import Piece, Volume

MAX_PIECES: Final = 65536
"""More than an LVM volume of 1 TiB has if it lies in runs of 16 MiB."""
_MAX_STRIPES = 4 * MAX_PIECES
_MAX_BYTES = 1 << 62
_MAX_DISKS = 4096
_MAX_DEVICES = 64
_MAX_TEXT = 4096
_MAX_NAME = 255
"""Bytes: what a folder's name may have."""
_FIELDS = 10


def to_record(volume: Volume) -> list[object]:
    """What `from_record` takes."""
    return [
        volume.name,
        volume.size,
        [
            [piece.start, piece.length, piece.unit, [list(stripe) for stripe in piece.stripes]]
            for piece in volume.pieces
        ],
        volume.kind,
        volume.label,
        volume.uuid,
        list(volume.devices),
        volume.partition,
        volume.partition_label,
        volume.problem,
    ]


def from_record(value: object) -> Volume:
    """Raises GuestDamaged for anything that `to_record` would not have made."""
    name, size, pieces, kind, label, uuid, devices, partition, partition_label, problem = _list(
        value, _FIELDS, exactly=True
    )
    return Volume(
        _name(name),
        _number(size),
        _pieces(pieces),
        _text(kind),
        _text(label),
        _text(uuid),
        tuple(_text(device) for device in _list(devices, _MAX_DEVICES)),
        _text(partition),
        _text(partition_label),
        _text(problem),
    )


def _pieces(value: object) -> tuple[Piece, ...]:
    pieces = []
    stripes_left = _MAX_STRIPES
    for row in _list(value, MAX_PIECES):
        start, length, unit, stripes = _list(row, 4, exactly=True)
        pairs = [_list(pair, 2, exactly=True) for pair in _list(stripes, stripes_left)]
        stripes_left -= len(pairs)
        places = tuple((_number(disk, _MAX_DISKS), _number(offset)) for disk, offset in pairs)
        pieces.append(Piece(_number(start), _number(length), _number(unit), places))
    return tuple(pieces)


def _list(value: object, limit: int, *, exactly: bool = False) -> list[object] | tuple[object, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > limit:
        raise GuestDamaged("a worker described a volume that cannot be")
    if exactly and len(value) != limit:
        raise GuestDamaged("a worker described a volume that cannot be")
    return value


def _number(value: object, limit: int = _MAX_BYTES) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise GuestDamaged("a worker gave an impossible number for a volume")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise GuestDamaged("a worker gave an impossible text for a volume")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise GuestDamaged("a worker gave a text for a volume that is not Unicode")
    return value


def _name(value: object) -> str:
    name = _text(value)
    if name in ("", ".", "..") or len(name.encode()) > _MAX_NAME:
        raise GuestDamaged("a worker named a volume as no folder can be named")
    if not name.isprintable() or "/" in name:
        raise GuestDamaged("a worker named a volume as no folder can be named")
    return name
