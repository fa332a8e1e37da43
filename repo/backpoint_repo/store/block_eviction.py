"""Which files of a block cache go when room is needed.

Pure, and of bounded memory however many files there are. Knows neither folders nor locks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final, NamedTuple

_ALLOCATION: Final = 4096


class CacheFile(NamedTuple):
    """path: of the file. size: bytes it takes up on the disk. used: when it was last, in seconds
    since 1970. lasting: of metadata, which goes when no data is left."""

    path: str
    size: int
    used: float
    lasting: bool


class Eviction(NamedTuple):
    """held: bytes of all files there were. victims: what goes, first the first."""

    held: int
    victims: list[CacheFile]


def plan_eviction(files: Iterable[CacheFile], wanted: int) -> Eviction:
    """The least that frees `wanted` bytes: data before metadata, then what was not used longest.

    Remembers no more files than it names, and one.
    """
    held = chosen = 0
    heap: list[tuple[bool, float, str, CacheFile]] = []  # the last to go on top
    for file in files:
        held += file.size
        if wanted <= 0:
            continue
        heapq.heappush(heap, (not file.lasting, -file.used, file.path, file))
        chosen += file.size
        while heap and chosen - heap[0][-1].size >= wanted:
            chosen -= heapq.heappop(heap)[-1].size
    return Eviction(held, [entry[-1] for entry in sorted(heap, reverse=True)])


def size_on_disk(length: int) -> int:
    """Bytes that a file of `length` bytes takes up."""
    return -(-length // _ALLOCATION) * _ALLOCATION
