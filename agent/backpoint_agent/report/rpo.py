"""How long a VM is, and was, without a new point, against how long it may be. Pure.

Decides which points' times are believed: clocks jump, and no jump may make the figures look better
than they are. A point that is dated after one made later, or after now, counts for nothing, and
that is said. Reads no clock, no file, no repository. Times in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from backpoint_agent.cron import dues_after
from backpoint_agent.schedule import starts_in_window
from backpoint_agent.settings.job import Job

GAPS_OF: Final = 30
"""The longest gap is sought among so many points."""

AHEAD_S: Final = 300.0
"""A point may be dated so far ahead of us: vCenter's clock and ours are never the same."""

SLACK_MAX_S: Final = 6 * 3600.0
"""Without `rpo_hours`: a run has until its next start, but no longer than this, to get to a VM."""

_HORIZON_S: Final = 8 * 86_400.0
_HORIZON_MAX_S: Final = 400 * 86_400.0
_DUES_MIN: Final = 13
"""Starts looked at: those of eight days, or thirteen, or those of a year."""

_NEVER_S: Final = 9 * 366 * 86_400.0
"""29 February may be eight years apart; what has not come by then will not."""


Made = tuple[str, float]
"""A point's id, and the time it is of."""


@dataclass(frozen=True)
class PointTimes:
    """believed: by their times, each point once. doubted: ids of those that are not."""

    believed: tuple[Made, ...] = ()
    doubted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Reached:
    """age_s: of the newest point, None where there is none. longest_gap_s: between two points that
    follow each other, among the last; None where there are no two."""

    newest: float | None
    age_s: float | None
    longest_gap_s: float | None

    @property
    def worst_s(self) -> float | None:
        """The longest time without a new point, the present one included."""
        return max((s for s in (self.age_s, self.longest_gap_s) if s is not None), default=None)


def believe(made: Sequence[Made], now: float) -> PointTimes:
    """made: in the order in which the points were made, the first one first."""
    believed: list[Made] = []
    doubted: set[str] = set()
    bound = now + AHEAD_S
    for point, time in reversed(made):
        if time <= bound:
            believed.append((point, time))
            bound = time
        else:
            doubted.add(point)
    return PointTimes(_in_order(believed), frozenset(doubted))


def together(several: Iterable[PointTimes]) -> PointTimes:
    """The points of one VM that are known from several places: what one doubts is doubted."""
    several = tuple(several)
    doubted = frozenset[str]().union(*(times.doubted for times in several))
    believed = {made for times in several for made in times.believed if made[0] not in doubted}
    return PointTimes(_in_order(believed), doubted)


def reached(times: PointTimes, now: float, there: Container[str] | None = None) -> Reached:
    """What `times`, believed at `now`, come to. there: ids of the points that can be restored, None
    if that is not known; others were made, and fill no present need."""
    last = [time for point, time in times.believed if there is None or point in there]
    newest = last[-1] if last else None
    moments = [time for _, time in times.believed[-GAPS_OF:]]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    age_s = None if newest is None else max(0.0, now - newest)
    return Reached(newest, age_s, max(gaps, default=None))


def wanted_s(job: Job, now: datetime) -> float | None:
    """What the job asks for: `rpo_hours`; else the longest pause of its schedule and a slack; None
    for a job without a schedule, or one whose starts all miss its window. now: in local time."""
    if job.rpo_hours is not None:
        return job.rpo_hours * 3600.0
    pause_s = _longest_pause_s(job, now)
    return None if pause_s is None else pause_s + min(pause_s, SLACK_MAX_S)


def is_missed(wanted: float | None, found: Reached) -> bool:
    """Whether the newest point is too old, or missing."""
    return wanted is not None and (found.age_s is None or found.age_s > wanted)


def _in_order(points: Iterable[Made]) -> tuple[Made, ...]:
    return tuple(sorted(set(points), key=lambda made: (made[1], made[0])))


def _longest_pause_s(job: Job, now: datetime) -> float | None:
    if job.schedule is None:
        return None
    starts: list[float] = []
    for due in dues_after(job.schedule, now):
        passed_s = due.timestamp() - now.timestamp()
        enough = len(starts) >= _DUES_MIN and passed_s > _HORIZON_S
        if enough or (passed_s > _HORIZON_MAX_S and len(starts) > 1) or passed_s > _NEVER_S:
            break
        if starts_in_window(job, due.astimezone(now.tzinfo)):
            starts.append(due.timestamp())
    return max((later - earlier for earlier, later in pairwise(starts)), default=None)
