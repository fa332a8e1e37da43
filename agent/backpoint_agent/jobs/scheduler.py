"""The scheduler: starts each job when it is due, until it is stopped.

Decides that a job never runs beside itself, and that what could not start is reported like a run.
Which job is due is planned in `schedule.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import trio

from backpoint_agent.jobs.due_memory import read_dealt_with, write_dealt_with
from backpoint_agent.jobs.job_run import JobOrder, run_job
from backpoint_agent.jobs.office import Office
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.local_zone import LocalZone
from backpoint_agent.schedule import Due, plan_step, sleep_s

_LOOK_EVERY_S: Final = 1.0
"""A stop is heard within a second."""

Report = Callable[[RunRecord], None]


class Scheduler:
    """Of one process."""

    def __init__(self, office: Office, report: Report) -> None:
        """report: called with each run's record, in a thread; may take its time, raises nothing."""
        self._office = office
        self._report = report
        self._running: set[str] = set()

    async def run(self) -> None:
        """Until the office's stop is requested and every run has ended. Raises UsageError."""
        office = self._office
        state = office.settings.state
        jobs = tuple(office.settings.jobs.values())
        dealt_with = read_dealt_with(state)
        async with trio.open_nursery() as nursery:
            while not office.stop.reason:
                now = self._now()
                step = plan_step(now, jobs, dealt_with)
                if step.dealt_with != dealt_with:
                    write_dealt_with(state, step.dealt_with)
                    dealt_with = step.dealt_with
                for due in step.due:
                    nursery.start_soon(self._deal_with, due)
                await trio.sleep(min(_LOOK_EVERY_S, sleep_s(now, jobs)))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._office.clock(), LocalZone())

    async def _deal_with(self, due: Due) -> None:
        job = self._office.settings.jobs[due.job]
        if not due.starts:
            await self._told(due, f"due at {due.at:%H:%M} UTC, outside its window: not started")
        elif due.job in self._running:
            await self._told(due, f"due at {due.at:%H:%M} UTC, still running: not started again")
        else:
            self._running.add(due.job)
            try:
                until = due.until.timestamp() if due.until else None
                record = await run_job(self._office, JobOrder(job, until=until))
            finally:
                self._running.remove(due.job)
            await trio.to_thread.run_sync(self._report, record)

    async def _told(self, due: Due, trouble: str) -> None:
        office = self._office
        job = office.settings.jobs[due.job]
        now = office.clock()
        number = f"{due.at:%Y%m%dT%H%M%SZ}-{due.job}"
        account = office.settings.vcenter_of(job).name
        record = RunRecord(number, due.job, account, now, now, (), trouble=trouble)
        await trio.to_thread.run_sync(self._report, record)
