"""Which points a nightly drill tries: of each VM the newest backup, those proved longest ago first.

Pure: points and proofs in, points out. A VM that was never proved comes before all others; among
equals a lot decides, so that a fleet larger than a night is gone through all the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from backpoint_repo.catalog import PointSummary


def plan_drill(
    points: Sequence[PointSummary],
    proved_at: Mapping[bytes, float],
    count: int,
    chance: random.Random,
) -> list[PointSummary]:
    """At most `count` points. proved_at: point id -> when it was last proved or failed, seconds
    since 1970."""
    newest: dict[str, PointSummary] = {}
    tried: dict[str, float] = {}
    for point in points:
        best = newest.get(point.vm)
        if best is None or _age(point) > _age(best):
            newest[point.vm] = point
        if point.point_id in proved_at:
            at = proved_at[point.point_id]
            tried[point.vm] = max(at, tried.get(point.vm, at))
    drawn = list(newest.values())
    chance.shuffle(drawn)
    drawn.sort(key=lambda point: tried.get(point.vm, float("-inf")))
    return drawn[:count]


def _age(point: PointSummary) -> tuple[bool, float, int, float]:
    """What a live session wrote counts only where a VM has nothing else."""
    return not point.branch, point.time, point.generation, point.created
