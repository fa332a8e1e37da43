"""Which blobs come with one ranged get: neighbours in a pack, and what little lies between them.

Pure: places in, groups out. What a place holds, and who fetches it, is for the readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from backpoint_repo.index_segment import Location

RANGE_MAX: Final = 4 << 20
"""Bytes fetched with one ranged get at most; more only where a single blob is larger."""


class Reach(NamedTuple):
    """gap: unwanted bytes between two wanted blobs that are fetched along rather than asked around.
    longest: bytes of one ranged get."""

    gap: int
    longest: int = RANGE_MAX


NEAR: Final = Reach(64 << 10)
FAR: Final = Reach(256 << 10)
"""A request that waits 50 ms costs what 300 KB do at 200 MB/s, where 32 are under way at once."""


def reach_of(lanes: int) -> Reach:
    """What pays off where a store takes so many requests at once."""
    return NEAR if lanes == 1 else FAR


def plan_ranges(places: Sequence[Location | None], reach: Reach) -> Iterator[list[int]]:
    """Indices into `places`, each that is not None in exactly one group, in the order in which the
    group's pack has them."""
    found = [(place, at) for at, place in enumerate(places) if place is not None]
    found.sort(key=lambda item: (item[0].pack, item[0].offset))
    group: list[int] = []
    first = last = None
    for place, at in found:
        if first is None or last is None or not _continues(first, last, place, reach):
            if group:
                yield group
            group, first = [], place
        group.append(at)
        last = place
    if group:
        yield group


def _continues(first: Location, last: Location, place: Location, reach: Reach) -> bool:
    return (
        place.pack == first.pack
        and place.offset - (last.offset + last.length) <= reach.gap
        and place.offset + place.length - first.offset <= reach.longest
    )
