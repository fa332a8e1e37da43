"""CRC-32C over many metadata blocks at once.

By table look-ups in numpy: a checksum is the exclusive or of one table value per byte and place, so
all bytes are looked up together. 0.8 us for 512 bytes, where dissect.util's takes 5.2: 0.4 s on
100,000 inodes. Knows no format.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL: Final = 0x82F63B78
_UNIT: Final = 512
_UNITS_AT_ONCE: Final = 16
"""Gathered values stay in the nearest caches: 2048 units at once take 12 times as long."""


def byte_table() -> NDArray[np.uint32]:
    """What each value of the last byte does to a checksum."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


def _tables() -> NDArray[np.uint32]:
    """Value [place][byte]: the checksum of a unit that is zero but for that byte in that place."""
    last = byte_table()
    tables = np.zeros((_UNIT, 256), np.uint32)
    tables[-1] = last
    for place in range(_UNIT - 2, -1, -1):
        after = tables[place + 1]
        tables[place] = last[after & 0xFF] ^ (after >> 8)
    tables.flags.writeable = False
    return tables


_TABLES: Final = _tables()
_FLAT: Final = _TABLES.ravel()
_PLACES: Final = np.arange(_UNIT, dtype=np.intp) * 256


def crc32c_of_rows(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Of each row; their length must be a multiple of 512. Overwrites the rows."""
    count, length = rows.shape
    rows[:, :4] ^= 0xFF
    units = rows.reshape(-1, _UNIT)
    parts = np.empty(len(units), np.uint32)
    places = np.empty((_UNITS_AT_ONCE, _UNIT), np.intp)
    values = np.empty((_UNITS_AT_ONCE, _UNIT), np.uint32)
    for first in range(0, len(units), _UNITS_AT_ONCE):
        some = units[first : first + _UNITS_AT_ONCE]
        np.add(some, _PLACES, out=places[: len(some)])
        # Indexing with [] takes 3.5 us a unit, this 1.0: no new arrays, no bounds to look at.
        _FLAT.take(places[: len(some)], out=values[: len(some)], mode="wrap")
        np.bitwise_xor.reduce(values[: len(some)], axis=1, out=parts[first : first + len(some)])
    columns = parts.reshape(count, length // _UNIT)
    state = columns[:, 0].copy()
    for column in range(1, columns.shape[1]):
        state = _after_zeros(state) ^ columns[:, column]
    return state ^ np.uint32(0xFFFFFFFF)


def rows_are_sealed(data: bytes, row_size: int, offset: int) -> NDArray[np.bool_]:
    """Whether each row holds, little-endian at `offset`, its own checksum (with zeros there)."""
    rows = np.frombuffer(data, np.uint8).reshape(-1, row_size).copy()
    stored = rows[:, offset : offset + 4].copy().view("<u4")[:, 0]
    rows[:, offset : offset + 4] = 0
    return np.asarray(crc32c_of_rows(rows) == stored, np.bool_)


def _after_zeros(state: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """What a checksum becomes over a unit of zeros: the same as that of the unit it starts."""
    after: NDArray[np.uint32] = (
        _TABLES[0][state & 0xFF]
        ^ _TABLES[1][state >> 8 & 0xFF]
        ^ _TABLES[2][state >> 16 & 0xFF]
        ^ _TABLES[3][state >> 24]
    )
    return after
