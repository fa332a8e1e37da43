"""What `status` tells, gathered: jobs, VMs, what runs now, what is left over, what is wrong.

Reads records, repository, ledger and locks, each of which may be unusable without the others being
so: that is then one of the troubles. Decides whether all is well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from backpoint_agent.effect import Effect, left_over
from backpoint_agent.ledger import Ledger
from backpoint_agent.report.history import JobHistory, read_history
from backpoint_agent.report.records import read_records, records_folder
from backpoint_agent.report.repository_points import read_points
from backpoint_agent.report.restores import restore_rate
from backpoint_agent.report.rpo import AHEAD_S, Made, wanted_s
from backpoint_agent.report.standing import Standing, plan_standings
from backpoint_agent.report.work_under_way import Work, work_under_way
from backpoint_agent.schedule import next_start
from backpoint_agent.settings.model import Settings, Window
from backpoint_agent.state_folder import StateFolder
from backpoint_repo.errors import BackpointError, KeyFault
from backpoint_repo.repository import Repository


@dataclass(frozen=True)
class JobStatus:
    """One job. next_start: None for a job that is started by hand. wanted_s: its RPO, if it has
    one."""

    history: JobHistory
    vcenter: str
    next_start: datetime | None
    window: Window | None
    wanted_s: float | None

    @property
    def failed(self) -> bool:
        """Whether its last run left something undone."""
        run = self.history.newest
        return run is not None and bool(run.failed or run.trouble)


@dataclass(frozen=True)
class Status:
    """All of it at one moment. effects: to be reaped. troubles: what is wrong, a sentence each.
    notes: what one should know, and is not wrong."""

    now: datetime
    jobs: tuple[JobStatus, ...]
    machines: tuple[Standing, ...]
    work: tuple[Work, ...]
    effects: tuple[Effect, ...]
    troubles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Nobody has to look."""
        return not (
            self.troubles
            or self.effects
            or any(job.failed for job in self.jobs)
            or any(machine.is_missed or machine.outcome.alarms for machine in self.machines)
        )


def read_status(
    settings: Settings,
    state: StateFolder,
    open_repository: Callable[[Settings], Repository],
    now: datetime,
) -> Status:
    """The status at `now` (local time). Raises nothing that files can cause."""
    reading = _Reading(settings, state, now)
    histories = reading.histories()
    machines = plan_standings(
        settings,
        histories,
        now,
        repository=reading.repository(open_repository, histories),
        restore_rate=restore_rate(state, reading.troubles.append),
    )
    return Status(
        now,
        tuple(map(reading.job, histories)),
        tuple(machines),
        tuple(reading.work({machine.key for machine in machines})),
        tuple(reading.effects()),
        tuple(reading.troubles),
        tuple(reading.notes),
    )


class _Reading:
    """Each thing by itself; what cannot be read becomes a trouble."""

    def __init__(self, settings: Settings, state: StateFolder, now: datetime) -> None:
        self._settings = settings
        self._state = state
        self._now = now
        self.troubles: list[str] = []
        self.notes: list[str] = []

    def histories(self) -> list[JobHistory]:
        folder = records_folder(self._settings, self._state)
        return [
            read_history(job, read_records(folder, job, self.troubles.append))
            for job in self._settings.jobs
        ]

    def job(self, history: JobHistory) -> JobStatus:
        job = self._settings.jobs[history.job]
        run = history.newest
        if run is not None and run.started > self._now.timestamp() + AHEAD_S:
            self.troubles.append(
                f"{job.name}: its last run is dated in the future: a clock was, or is, wrong"
            )
        if history.not_started:
            self.notes.append(f"{job.name}: {history.not_started}")
        return JobStatus(
            history,
            self._settings.vcenter_of(job).name,
            next_start(job, self._now),
            job.window,
            wanted_s(job, self._now),
        )

    def repository(
        self, open_repository: Callable[[Settings], Repository], histories: list[JobHistory]
    ) -> dict[str, list[Made]] | None:
        """The points of each VM; None where the repository cannot be opened or listed."""
        try:
            points, unreadable = read_points(open_repository(self._settings), histories)
        except BackpointError as error:
            # Who only looks may have no key; an agent that was given one has to have the right one.
            given = self._settings.repository
            has_key = given.credential is not None or given.passphrase is not None
            harmless = isinstance(error, KeyFault) and not has_key
            told = self.notes if harmless else self.troubles
            told.append(f"points are those of the records, not of the repository: {error}")
            return None
        self.troubles.extend(f"of the repository: {trouble}" for trouble in unreadable)
        return points

    def effects(self) -> list[Effect]:
        try:
            with Ledger(self._state.ledger) as ledger:
                self.troubles.extend(ledger.damage())
                return left_over(ledger.open_effects())
        except BackpointError as error:
            self.troubles.append(str(error))
            return []

    def work(self, keys: set[str]) -> list[Work]:
        try:
            return work_under_way(self._state.locks, keys)
        except OSError as error:
            self.notes.append(f"what runs now is not known: {error}")
            return []
