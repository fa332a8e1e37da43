"""In which order the points of one VM came, and which of them may take another's place.

A point shows a moment (`time`) and was made at one (`created`, and `generation`, which no clock can
spoil). A point that was made after another and yet shows an earlier moment is *out of order*: a
clock was wrong, an old image was imported, or somebody wants good points to go. It takes no other's
place. A point gives up its place only to points in order that show a later moment and were made
after it. So adding a point that is out of order never makes another one go. Knows no rule.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from backpoint_repo.catalog import PointSummary
from backpoint_repo.retention.rules import Bucket

FUTURE_TOLERANCE_S: Final = 600.0
"""Clocks of two machines may differ so much without anything being wrong."""
LATER: Final = attrgetter("time", "generation", "created", "point_id")


def is_future(point: PointSummary, now: float) -> bool:
    """Whether a clock is wrong: this point's, or ours."""
    return max(point.time, point.created) > now + FUTURE_TOLERANCE_S


class Succession:
    """Points of one VM, none of them in the future."""

    def __init__(self, points: Iterable[PointSummary]) -> None:
        self._in_order = _in_order(sorted(points, key=LATER))
        self._later = [LATER(point) for point in self._in_order]
        self._created = [point.created for point in self._in_order]
        self._generations = [point.generation for point in self._in_order]

    @property
    def newest_time(self) -> float:
        """The moment that the last point in order shows; before all times without one."""
        return self._in_order[-1].time if self._in_order else -math.inf

    def first_after(self, point: PointSummary) -> int:
        """Number of the first point in order that may take this one's place; the later ones may,
        too. In order, creation and generation rise with time, so these are one run."""
        return max(
            bisect_right(self._later, LATER(point)),
            bisect_left(self._created, point.created),
            bisect_left(self._generations, point.generation),
        )

    def count_from(self, number: int) -> int:
        """How many points in order there are from this one on."""
        return len(self._in_order) - number

    def buckets(self, bucket: Bucket) -> Places:
        """The same points, by bucket."""
        return Places(bucket, [bucket(point.time) for point in self._in_order])


class Places:
    """Which buckets are taken by the points in order."""

    def __init__(self, bucket: Bucket, taken: list[int]) -> None:
        """taken: of each point in order; never falls."""
        self._bucket = bucket
        self._taken = taken
        # From each point on: how many different buckets.
        self._different = [0] * (len(taken) + 1)
        for at in range(len(taken) - 1, -1, -1):
            other = at + 1 == len(taken) or taken[at] != taken[at + 1]
            self._different[at] = self._different[at + 1] + other

    def rank(self, point: PointSummary, first_after: int) -> int | None:
        """1 for a point that is the newest in the newest bucket, 2 in the bucket before; None where
        a point that may take its place is in the same bucket."""
        rest = self._taken[first_after : first_after + 1]
        if rest == [self._bucket(point.time)]:
            return None
        return self._different[first_after] + 1


def _in_order(points: list[PointSummary]) -> list[PointSummary]:
    """points: by LATER."""
    created, generation = math.inf, math.inf
    found = []
    for point in reversed(points):
        if point.created <= created and point.generation <= generation:
            found.append(point)
        created, generation = min(created, point.created), min(generation, point.generation)
    return found[::-1]
