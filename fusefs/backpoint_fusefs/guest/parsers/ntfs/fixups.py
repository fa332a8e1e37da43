"""Records that were written whole: NTFS's sector marks taken out again, torn records refused.

The last two bytes of each 512 are replaced on disk by a number that must be the same in all of
them. Format: "update sequence array" (Microsoft; ntfs-3g `mst.c`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

_STRIDE: Final = 512


def repaired(blocks: bytes, size: int, magic: bytes) -> list[bytes | None]:
    """Each record of `size` bytes as it was meant; None: another thing, torn or damaged.

    Many at once as array expressions: one by one they are a third of the time of a listing.
    """
    count = len(blocks) // size
    words = np.frombuffer(blocks, np.dtype("<u2"), count * size // 2)
    words = words.reshape(count, size // 2).copy()
    sectors = np.arange(size // _STRIDE)
    marks = words[:, 2].astype(np.int64) // 2
    right = words[:, 0] == int.from_bytes(magic[:2], "little")
    right &= words[:, 1] == int.from_bytes(magic[2:4], "little")
    right &= (words[:, 2] % 2 == 0) & (words[:, 3] == len(sectors) + 1)
    right &= (marks >= 4) & (marks + len(sectors) + 1 <= _STRIDE // 2)
    marks[~right] = 4
    rows = np.arange(count)[:, None]
    ends = _STRIDE // 2 - 1 + sectors * (_STRIDE // 2)
    right &= (words[:, ends] == words[rows, marks[:, None]]).all(axis=1)
    words[:, ends] = words[rows, marks[:, None] + 1 + sectors]
    whole = words.tobytes()
    return [
        whole[start : start + size] if good else None
        for start, good in zip(range(0, count * size, size), right.tolist(), strict=True)
    ]
