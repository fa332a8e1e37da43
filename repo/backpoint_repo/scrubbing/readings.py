"""When each pack was last read in full, and how closely: the newest of what all scrubs have noted.

"Last read good" of a chunk is that of its pack, unless its copy is marked as damaged: a pack is
written once and read as a whole. Decides what a row of a READING object is, and which of several
counts. Which objects there are is for `reading_book.py`. Readings are hints where to look next:
whoever holds an agent credential can make them, so they prove nothing to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PACK_NAME_SIZE, PackRef

COMPARED: Final = 0
"""The sealed bytes were held against the digests of the directory: finds rot."""
OPENED: Final = 1
"""Every blob was opened and its content held against its id: also finds what was forged."""
_DEPTHS: Final = 2
ROW: Final = np.dtype([("pack", f"S{1 + PACK_NAME_SIZE}"), ("time", "<f8"), ("depth", "u1")])
"""As stored, 26 bytes. The pack is its kind and its name."""
AHEAD_S: Final = 86400.0
"""How far clocks of several machines may be apart: a reading from later than that is none."""
Rows = NDArray[np.void]
"""(m,) of ROW."""


@dataclass(frozen=True)
class PackAges:
    """never: how many packs were never read in full by a scrub. oldest: the oldest reading of the
    others, seconds since 1970; None where there are none."""

    never: int = 0
    oldest: float | None = None


class Readings:
    """Of the packs given, and no others. Not thread-safe."""

    def __init__(self, packs: Iterable[PackRef]) -> None:
        self.packs = tuple(sorted(packs))
        self._keys = np.array([_key(pack) for pack in self.packs], ROW["pack"])
        self._times = np.full((len(self.packs), _DEPTHS), -np.inf)

    def learn(self, rows: Rows, now: float) -> None:
        """Take over what is newer. Rows of other packs, from the future, or of a depth that is not
        known are passed over."""
        if not len(self.packs):
            return
        believed = (rows["time"] >= 0) & (rows["time"] <= now + AHEAD_S) & (rows["depth"] < _DEPTHS)
        rows = rows[believed]
        at = np.minimum(np.searchsorted(self._keys, rows["pack"]), len(self._keys) - 1)
        ours = self._keys[at] == rows["pack"]
        np.maximum.at(self._times, (at[ours], rows["depth"][ours]), rows["time"][ours])

    def last_good(self, depth: int) -> NDArray[np.float64]:
        """(n,) when each of `packs` was last read at least so closely; -inf: never."""
        newest: NDArray[np.float64] = self._times[:, depth:].max(axis=1, initial=-np.inf)
        return newest

    def rows(self) -> Rows:
        """All that is known, as it is stored."""
        at, depth = np.nonzero(np.isfinite(self._times))
        rows = np.empty(len(at), ROW)
        rows["pack"], rows["time"], rows["depth"] = self._keys[at], self._times[at, depth], depth
        return rows


def ages_of(last_good: NDArray[np.float64]) -> PackAges:
    """last_good: as `Readings.last_good`."""
    read = last_good[np.isfinite(last_good)]
    return PackAges(len(last_good) - len(read), float(read.min()) if len(read) else None)


def row_of(pack: PackRef, time: float, depth: int) -> tuple[bytes, float, int]:
    """One reading, for `rows_of`."""
    return _key(pack), time, depth


def rows_of(readings: list[tuple[bytes, float, int]]) -> Rows:
    """Readings as they are stored."""
    return np.array(readings, ROW)


def encode_rows(rows: Rows) -> bytes:
    """The `rows` field of a READING object."""
    return rows.tobytes()


def decode_rows(data: bytes, what: str) -> Rows:
    """Raises ObjectDamaged where the bytes are no rows. what: the object that holds them."""
    if len(data) % ROW.itemsize:
        raise ObjectDamaged(f"{what}: its rows have the wrong size")
    rows = np.frombuffer(data, ROW)
    kinds = np.frombuffer(data, np.uint8)[:: ROW.itemsize]
    if not np.isin(kinds, (Kind.DATA_PACK, Kind.NODE_PACK, Kind.PARITY)).all():
        raise ObjectDamaged(f"{what}: names something that is no pack")
    return rows


def _key(pack: PackRef) -> bytes:
    return bytes([pack.kind]) + pack.name
