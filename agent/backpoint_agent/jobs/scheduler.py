"""The scheduler: starts each job when it is due, until it is stopped.

Decides that a job never runs beside itself, and that what could not start is reported like a run.
Which job is due is planned in `schedule.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

import trio

from backpoint_agent.jobs.due_memory import read_dealt_with, write_dealt_with
from backpoint_agent.jobs.job_run import JobOrder, run_job, run_number
from backpoint_agent.jobs.office import Office
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.local_zone import LocalZone
from backpoint_agent.schedule import Due, plan_step, sleep_s
from backpoint_repo.errors import UsageError
from backpoint_repo.terminal import say, warn

_LOOK_EVERY_S: Final = 0.5
"""A stop is heard within this."""

Report = Callable[[RunRecord], None]
RunJob = Callable[[Office, JobOrder], Awaitable[RunRecord]]


class Scheduler:
    """Of one process."""

    def __init__(self, office: Office, report: Report, run: RunJob = run_job) -> None:
        """report: called with each run's record, in a thread; may take its time. It and `run` raise
        nothing. Raises UsageError where it cannot be read what was dealt with before."""
        self._office = office
        self._report = report
        self._run = run
        self._running: set[str] = set()
        self._idle: set[str] = set()
        """Jobs whose last due time passed without a start, which was reported."""
        self._dealt_with = read_dealt_with(office.state.path)

    async def run(self) -> None:
        """Until the office's stop is requested and every run has ended."""
        look_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            while not self._office.stop.reason:
                if trio.current_time() >= look_at:
                    look_at = trio.current_time() + self._start_due(nursery)
                await trio.sleep(_LOOK_EVERY_S)

    def _start_due(self, nursery: trio.Nursery) -> float:
        """Seconds after which to look again."""
        jobs = tuple(self._office.settings.jobs.values())
        now = datetime.fromtimestamp(self._office.clock(), LocalZone())
        step = plan_step(now, jobs, self._dealt_with)
        if step.dealt_with != self._dealt_with:
            self._dealt_with = step.dealt_with
            self._remember()
        for due in step.due:
            nursery.start_soon(self._deal_with, due)
        return sleep_s(now, jobs)

    def _remember(self) -> None:
        """A full disk must not cost the night's runs; it can make one twice, if we die too."""
        try:
            write_dealt_with(self._office.state.path, self._dealt_with)
        except UsageError as error:
            warn(f"which jobs were started is not remembered: {error}")

    async def _deal_with(self, due: Due) -> None:
        if not due.starts:
            await self._pass_over(due, "outside its window: not started")
        elif due.job in self._running:
            await self._pass_over(due, "still running: not started again")
        else:
            self._idle.discard(due.job)
            await trio.to_thread.run_sync(self._report, await self._run_now(due))

    async def _pass_over(self, due: Due, why: str) -> None:
        """The first of a series is reported; a job that is due every five minutes would else send
        a mail every five minutes of the day."""
        record = self._not_started(due, why)
        if due.job in self._idle:
            say(f"{due.job}: {record.trouble}")
            return
        self._idle.add(due.job)
        await trio.to_thread.run_sync(self._report, record)

    async def _run_now(self, due: Due) -> RunRecord:
        job = self._office.settings.jobs[due.job]
        until = due.until.timestamp() if due.until else None
        self._running.add(due.job)
        try:
            record = await self._run(self._office, JobOrder(job, until=until))
        finally:
            self._running.remove(due.job)
        if not due.late:
            return record
        made_up = f"this run makes up for one that was due at {_shown(due)} and was missed"
        return replace(record, warnings=(made_up, *record.warnings))

    def _not_started(self, due: Due, why: str) -> RunRecord:
        settings, now = self._office.settings, self._office.clock()
        vcenter = settings.vcenter_of(settings.jobs[due.job]).name
        trouble = f"due at {_shown(due)}, {why}"
        return RunRecord(run_number(now), due.job, vcenter, now, now, (), trouble=trouble)


def _shown(due: Due) -> str:
    return f"{due.at.astimezone(LocalZone()):%Y-%m-%d %H:%M}"
