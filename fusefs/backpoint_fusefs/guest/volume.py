"""A volume: a stretch of a guest's storage with (perhaps) a filesystem on it, and where its bytes
lie on the point's disks.

Values only; found by `parsers/layout`, read by `volume_reader.py`. Knows no filesystem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Piece(NamedTuple):
    """Bytes [start, start + length) of a volume.

    Stripe units of `unit` bytes lie in turn on the `stripes`, each (disk number, byte offset there
    of this piece's first unit); a linear piece has one stripe, and unit == length. A striped one
    is whole rows: length is a multiple of unit * len(stripes).
    """

    start: int
    length: int
    unit: int
    stripes: tuple[tuple[int, int], ...]


class Place(NamedTuple):
    """Where some bytes of a volume are: `length` bytes at `offset` of disk number `disk`."""

    disk: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Volume:
    """name: the folder it is shown as: disk0-p1, disk1 (no partitions), vg0-root.

    pieces: in order and without gaps the whole of it; empty where it cannot be found, which
    `problem` then says. kind: ext, xfs, ...; the parser that reads it, or what else it is (swap,
    luks, ...), or empty. label, uuid: the filesystem's, as blkid prints them. devices: names the
    guest may use for it, such as /dev/mapper/vg0-root. partition: the partition's UUID (PARTUUID),
    or empty. partition_label: of GPT. problem: a sentence that says why it cannot be read, else
    empty.
    """

    name: str
    size: int
    pieces: tuple[Piece, ...]
    kind: str
    label: str = ""
    uuid: str = ""
    devices: tuple[str, ...] = ()
    partition: str = ""
    partition_label: str = ""
    problem: str = ""
