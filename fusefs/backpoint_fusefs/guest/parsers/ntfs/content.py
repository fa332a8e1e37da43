"""Where the content of a data attribute is: on the volume, nowhere (zeros), or to be decoded.

Decodes nothing. Format: compression units as in ntfs-3g `compress.c`: one that lacks clusters is
compressed, one without any is zeros, a full one is stored as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    HOLE,
    Extent,
    GuestDamaged,
    GuestUnsupported,
)
from backpoint_fusefs.guest.parsers.ntfs.attribute import COMPRESSED, ENCRYPTED, Attribute
from backpoint_fusefs.guest.parsers.ntfs.mft import MasterFileTable


def data_extents(
    table: MasterFileTable, segments: list[Attribute], cluster: int
) -> Iterator[Extent]:
    """Of all parts of one attribute: its whole size, in order."""
    first = segments[0]
    if first.flags & ENCRYPTED:
        raise GuestUnsupported("a file is encrypted (EFS); its key is not on the volume")
    if first.value is not None:
        if first.size:
            yield Extent(0, first.size, DECODED)
        return
    extents: Iterable[Extent] = table.mapped(segments)
    if first.flags & COMPRESSED and first.unit:
        extents = _by_units(extents, cluster << first.unit)
    end = 0
    for offset, length, at in extents:
        # What was never written reads as zeros, whatever its clusters hold.
        length = min(length, first.initialized - offset)
        if length <= 0:
            break
        yield Extent(offset, length, at)
        end = offset + length
    if end < first.initialized:
        raise GuestDamaged(f"a file of {first.size} bytes has clusters for {end}")
    if end < first.size:
        yield Extent(end, first.size - end, HOLE)


def _by_units(extents: Iterable[Extent], unit: int) -> Iterator[Extent]:
    """Units that are compressed become DECODED."""
    mixed: list[Extent] = []
    for offset, length, at in extents:
        while length:
            filled = offset % unit
            take = min(length, unit - filled) if filled or length < unit else length // unit * unit
            piece = Extent(offset, take, at)
            if take >= unit:
                yield piece
            else:
                mixed.append(piece)
                if filled + take == unit:
                    yield from _unit(mixed, unit)
                    mixed = []
            offset, length = offset + take, length - take
            at += take if at >= 0 else 0
    if mixed:
        raise GuestDamaged("a compressed file ends within a compression unit")


def _unit(pieces: list[Extent], unit: int) -> Iterator[Extent]:
    holes = sum(1 for piece in pieces if piece.at == HOLE)
    if holes in (0, len(pieces)):
        yield from pieces
    else:
        yield Extent(pieces[0].offset, unit, DECODED)
