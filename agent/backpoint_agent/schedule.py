"""Which jobs are due now: pure, and the same answer however the clock got here.

What is remembered of each job is one moment: the due time that was dealt with last, started or
found to have no window. Everything follows from it: nothing runs twice for one due time when the
clock goes back, at most once when it jumps forward or the agent was off. Reads no clock, starts
nothing. Moments are aware, those given back in UTC (see `cron.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from backpoint_agent.cron import last_due, next_due
from backpoint_agent.settings.job import Job
from backpoint_agent.window import window_end

LATE: Final = timedelta(minutes=5)
"""A run that begins so long after its due time makes up for one that was missed."""

BELIEVED_AHEAD: Final = timedelta(hours=26)
"""A due time dealt with may lie this far ahead of a clock that was put back (a wrong zone, a wrong
day). Farther ahead it comes from a clock that was plainly wrong, and would stop the job for years.
"""

LONGEST_SLEEP_S: Final = 30.0
"""The clock may be put right while the scheduler sleeps; after this long it looks again."""


@dataclass(frozen=True)
class Due:
    """A job whose time has come. at: the due time. starts: False where its window is closed, which
    is reported and not made up for. late: the due time is long past. until: the window's end."""

    job: str
    at: datetime
    starts: bool
    late: bool
    until: datetime | None


@dataclass(frozen=True)
class Step:
    """due: in the order of their due times. dealt_with: to be remembered, durably, before any of
    them is started."""

    due: tuple[Due, ...]
    dealt_with: dict[str, datetime]


def plan_step(now: datetime, jobs: Iterable[Job], dealt_with: Mapping[str, datetime]) -> Step:
    """What is due, and what is to be remembered from now on.

    now: in the local zone. A job that nothing is remembered of is new: it waits for its next due
    time. Jobs that are gone are forgotten.
    """
    jobs = tuple(jobs)
    remembered = {job.name: _believed(now, dealt_with.get(job.name)) for job in jobs}
    due = tuple(plan_due(now, jobs, remembered))
    return Step(due, remembered | {item.job: item.at for item in due})


def plan_due(now: datetime, jobs: Iterable[Job], last_due: Mapping[str, datetime]) -> list[Due]:
    """The jobs with a due time that has come and is later than the one dealt with last; each once,
    for its latest. A job without an entry in `last_due` is not due."""
    found = (_due(now, job, last_due[job.name]) for job in jobs if job.name in last_due)
    return sorted((due for due in found if due), key=lambda due: (due.at, due.job))


def next_start(job: Job, now: datetime) -> datetime | None:
    """When the job is due next after `now`; None where it is started by hand only."""
    return None if job.schedule is None else next_due(job.schedule, now)


def starts_in_window(job: Job, moment: datetime) -> bool:
    """Whether a start at this moment is allowed."""
    return job.window is None or window_end(job.window, moment) is not None


def sleep_s(now: datetime, jobs: Iterable[Job]) -> float:
    """Seconds until the scheduler must look again."""
    starts = (next_start(job, now) for job in jobs)
    until = ((start - now.astimezone(UTC)).total_seconds() for start in starts if start)
    return min((LONGEST_SLEEP_S, *until))


def _believed(now: datetime, remembered: datetime | None) -> datetime:
    moment = now.astimezone(UTC)
    if remembered is None or remembered.astimezone(UTC) > moment + BELIEVED_AHEAD:
        return moment
    return remembered.astimezone(UTC)


def _due(now: datetime, job: Job, dealt_with: datetime) -> Due | None:
    at = None if job.schedule is None else last_due(job.schedule, now)
    if at is None or at <= dealt_with.astimezone(UTC):
        return None
    until = None if job.window is None else window_end(job.window, now)
    return Due(
        job=job.name,
        at=at,
        starts=job.window is None or until is not None,
        late=now.astimezone(UTC) - at > LATE,
        until=until,
    )
