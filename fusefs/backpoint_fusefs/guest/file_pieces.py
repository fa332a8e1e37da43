"""A guest file's bytes from its beginning to its end, for commands: holes told apart, the rest in
pieces that are fetched ahead.

Decides how large a piece is and how many are on their way. Blocks.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import DECODED, HOLE, Extent, Stat
from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_repo.errors import ObjectDamaged, ObjectMissing

_BATCH: Final = 2 << 20
_NEAR_AHEAD: Final = 4
"""Batches on their way."""
_FAR_AHEAD: Final = 12
"""Where each request waits for a network: 50 ms of 480 MB/s."""


class Piece(NamedTuple):
    """Bytes [offset, offset + length) of a file. content: None where they are a hole."""

    offset: int
    length: int
    content: bytes | memoryview | None


def threads_for(volumes: Iterable[GuestVolume | None]) -> int:
    """That fetch ahead of who reads files of these, as far as they are volumes."""
    lanes = max((volume.reader.lanes for volume in volumes if volume is not None), default=1)
    return (os.cpu_count() or 1) if lanes == 1 else _FAR_AHEAD


def read_pieces(volume: GuestVolume, found: Stat, ahead: Executor) -> Iterator[Piece]:
    """Of a regular file, in order. ahead: fetches pieces while others are dealt with.

    Raises GuestError, and what reading the disks raises.
    """
    batches = list(_batches(volume.extents(found)))
    if len(batches) == 1:
        yield from _read(volume, found, batches[0])
        return
    most = _NEAR_AHEAD if volume.reader.lanes == 1 else _FAR_AHEAD
    under_way: deque[Future[list[Piece]]] = deque()
    try:
        for batch in batches:
            under_way.append(ahead.submit(_read, volume, found, batch))
            if len(under_way) > most:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()
    finally:
        for left in under_way:
            left.cancel()


def parts_of(extents: Iterable[Extent], longest: int) -> Iterator[Extent]:
    """The same, with what is no hole cut into parts of no more than so many bytes."""
    for extent in extents:
        if extent.at == HOLE:
            yield extent
            continue
        for start in range(0, extent.length, longest):
            length = min(longest, extent.length - start)
            at = extent.at + start if extent.at >= 0 else extent.at
            yield Extent(extent.offset + start, length, at)


def read_part(volume: GuestVolume, found: Stat, part: Extent) -> bytes | memoryview:
    """The bytes of a part that is no hole."""
    if part.at == DECODED:
        return volume.read(found, part.offset, part.length)
    return volume.reader.read(part.at, part.length)


def _batches(extents: Iterable[Extent]) -> Iterator[list[Extent]]:
    """Parts that are worth a trip to a thread; an empty file has none."""
    batch: list[Extent] = []
    size = 0
    for part in parts_of(extents, _BATCH):
        length = 0 if part.at == HOLE else part.length
        if batch and size + length > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += length
    if batch:
        yield batch


def _read(volume: GuestVolume, found: Stat, batch: list[Extent]) -> list[Piece]:
    if volume.reader.lanes > 1:
        # What is wrong with a part is told when it is read.
        with suppress(ObjectDamaged, ObjectMissing):
            volume.reader.prefetch_all((part.at, part.length) for part in batch if part.at >= 0)
    return [
        Piece(part.offset, part.length, None if part.at == HOLE else read_part(volume, found, part))
        for part in batch
    ]
