"""Heals with what a disk holds at the very places where wanted content lay.

Decides what is read and how much at a time. Whatever the source is (a live disk, an image, the same
disk in another repository), only bytes whose keyed id is wanted are stored: a wrong source costs
the time of reading it.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from backpoint_repo.chunking import Cutter
from backpoint_repo.disk_map import Geometry
from backpoint_repo.errors import SourceError
from backpoint_repo.format import LEAF_SIZE
from backpoint_repo.healing.heal_session import HealSession, trouble_of
from backpoint_repo.healing.wanted import CHUNK, Places, Wanted, sorted_once
from backpoint_repo.leaf_graft import leaf_of_scan
from backpoint_repo.leaf_scan import plan_full, scan_leaf
from backpoint_repo.source.contract import ImageSource

_BATCH_BYTES: Final = 16 << 20
"""Plain bytes read, hashed and sealed at a time; one chunk more at most."""
LEAF: Final = 0


def _quietly(_: int) -> None:
    """No progress is wanted."""


class ImageRanges:
    """For one thread."""

    def __init__(self, wanted: Wanted, session: HealSession, cutter: Cutter, id_key: bytes) -> None:
        """id_key: the repository's key of chunk ids."""
        self._wanted = wanted
        self._session = session
        self._cutter = cutter
        self._id_key = id_key

    def heal(
        self, source: ImageSource, places: Places, advance: Callable[[int], None] = _quietly
    ) -> None:
        """Try the source at these places, which may be of several images. Raises what storing
        raises; what of the source cannot be read is noted.

        advance: called with the number of places tried.
        """
        chunks = places[places["level"] == CHUNK]
        for offsets, lengths in _batches(chunks, source.size):
            pieces = [
                piece
                for offset, length in zip(offsets, lengths, strict=True)
                if (piece := self._read(source, offset, length)) is not None
            ]
            self._session.store_chunks(self._wanted, pieces)
            advance(len(offsets))
        for offset in np.unique(places["offset"][places["level"] == LEAF]).tolist():
            self._try_leaf(source, offset)
            advance(1)

    def _read(self, source: ImageSource, offset: int, length: int) -> memoryview | None:
        """Padded with zeros behind the source's end, as the last block of a disk is."""
        data = memoryview(bytearray(length))
        try:
            source.read_into(offset, data[: min(length, source.size - offset)])
        except SourceError as error:
            self._session.note(trouble_of(error))
            return None
        return data

    def _try_leaf(self, source: ImageSource, offset: int) -> None:
        """Cut the leaf that begins here as a full backup would have cut it."""
        if offset >= source.size:
            return
        geometry = Geometry(source.size)
        buffer = memoryview(mmap.mmap(-1, LEAF_SIZE))
        try:
            extents = source.extents(offset, min(LEAF_SIZE, source.size - offset))
            for plan in plan_full(geometry, extents):
                scanned = scan_leaf(source, plan, buffer, self._cutter, self._id_key)
                self._session.store_node(self._wanted, leaf_of_scan(scanned, None).encode())
        except SourceError as error:
            self._session.note(trouble_of(error))


def _batches(places: Places, size: int) -> Iterator[tuple[list[int], list[int]]]:
    """(offsets, lengths) in bytes of what lies inside the source, in its order, once each."""
    inside = places[places["offset"] < size]
    ranges = sorted_once(inside, ("offset", "length"))
    before = np.cumsum(ranges["length"], dtype=np.int64) - ranges["length"].astype(np.int64)
    borders = np.flatnonzero(np.diff(before // _BATCH_BYTES, prepend=-1)).tolist()
    for first, last in pairwise([*borders, len(ranges)]):
        part = ranges[first:last]
        yield part["offset"].tolist(), part["length"].tolist()
