"""Searching a large sorted column of id prefixes without touching much of it.

A binary search looks at twenty places for each id, and so, where the column is mapped from a file,
soon has all of it in memory. What is kept here, every 64th prefix, leaves one place of 512 bytes.
Decides when that pays; knows nothing of the table.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FENCED_FROM: Final = 1 << 14
"""Prefixes; smaller columns are searched as they are."""
STRIDE: Final = 64


class PrefixFence:
    """Of one column. prefixes: (n,) rising."""

    def __init__(self, prefixes: NDArray[np.uint64]) -> None:
        self._prefixes = prefixes
        self._posts = prefixes[::STRIDE].copy() if len(prefixes) >= FENCED_FROM else None

    def first_rows(self, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(m,) the first row of each prefix, or where it would be."""
        count = len(self._prefixes)
        if self._posts is None or len(wanted) * STRIDE > count:
            return np.searchsorted(self._prefixes, wanted)
        start = np.maximum(np.searchsorted(self._posts, wanted) - 1, 0) * STRIDE
        at = start[:, np.newaxis] + np.arange(STRIDE)
        below = self._prefixes[np.minimum(at, count - 1)] < wanted[:, np.newaxis]
        first: NDArray[np.int64] = start + (below & (at < count)).sum(axis=1)
        return first
