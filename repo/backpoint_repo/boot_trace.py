"""What a guest read of its disks while it booted, in order: so that the next boot can fetch ahead.

Decides how such a list is written down and how long it may be. Knows no store and no readers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import MAX_DISK_SIZE

RANGES_MAX: Final = 200_000
"""What is read behind them is not recorded: a boot reads some hundred MiB in some 10,000 ranges."""
_DISKS_MAX: Final = 1 << 16
_LENGTH_MAX: Final = 1 << 31
_ENTRY_SIZE: Final = 2 + 8 + 4


class TracedRange(NamedTuple):
    """Bytes [offset, offset + length) of a point's disk number `disk`."""

    disk: int
    offset: int
    length: int


def encode_trace(ranges: Iterable[TracedRange]) -> bytes:
    """The first RANGES_MAX of them, by columns: that compresses to a third.

    Raises ValueError for a range that no disk has.
    """
    kept = list(itertools.islice(ranges, RANGES_MAX))
    if not all(_is_range(*one) for one in kept):
        raise ValueError("a range of a boot trace is of no disk")
    disks = np.array([one.disk for one in kept], dtype="<u2")
    offsets = np.array([one.offset for one in kept], dtype="<u8")
    lengths = np.array([one.length for one in kept], dtype="<u4")
    return disks.tobytes() + offsets.tobytes() + lengths.tobytes()


def decode_trace(encoded: bytes, what: str) -> list[TracedRange]:
    """Undo `encode_trace`. what: names the object. Raises ObjectDamaged."""
    count, rest = divmod(len(encoded), _ENTRY_SIZE)
    if rest or count > RANGES_MAX:
        raise ObjectDamaged(f"{what}: a boot trace of an impossible length")
    disks = np.frombuffer(encoded, "<u2", count, 0)
    offsets = np.frombuffer(encoded, "<u8", count, 2 * count)
    lengths = np.frombuffer(encoded, "<u4", count, 10 * count)
    columns = (disks.tolist(), offsets.tolist(), lengths.tolist())
    ranges = [TracedRange(*one) for one in zip(*columns, strict=True)]
    if not all(_is_range(*one) for one in ranges):
        raise ObjectDamaged(f"{what}: a boot trace has a range that is of no disk")
    return ranges


def _is_range(disk: int, offset: int, length: int) -> bool:
    inside = 0 <= offset <= MAX_DISK_SIZE and 0 < length <= _LENGTH_MAX
    return inside and 0 <= disk < _DISKS_MAX and offset + length <= MAX_DISK_SIZE
