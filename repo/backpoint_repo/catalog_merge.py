"""Which catalogue objects become one, so that a listing reads few of them and each point is written
anew seldom, however many points there are. Knows sizes only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

COMPACT_AFTER: Final = 64
"""Points without a catalogue entry after which a writer adds a catalogue object: reading that many
one by one costs about 10 ms."""
MERGE_AFTER: Final = 16
"""Catalogue objects of one level that become one, and so the factor between levels."""
ROWS_MAX: Final = 1 << 17
"""Points in one catalogue object, at most: about 10 MB. What has half of it is left alone."""


def plan_merges(sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Groups of catalogue objects, each to become one. sizes: points in each, by name."""
    levels = defaultdict[int, list[str]](list)
    for name, size in sorted(sizes.items()):
        if 2 * size <= ROWS_MAX:
            levels[_level(size)].append(name)
    return [tuple(names) for _, names in sorted(levels.items()) if len(names) >= MERGE_AFTER]


def _level(size: int) -> int:
    """0 for what one writer adds, with some to spare."""
    level, limit = 0, 2 * COMPACT_AFTER
    while size > limit:
        level, limit = level + 1, limit * MERGE_AFTER
    return level
