"""How each VM of each job stands: its newest point, how old it may be, how long to recover.

Pure: made of what the records say and, where it is known, of what the repository has. The truth for
metrics and `status` alike. Times in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from backpoint_agent.report.history import JobHistory, MachineHistory
from backpoint_agent.report.rpo import (
    AHEAD_S,
    Made,
    PointTimes,
    Reached,
    believe,
    is_missed,
    reached,
    together,
    wanted_s,
)
from backpoint_agent.running.outcome import MachineOutcome
from backpoint_agent.settings.model import Settings
from backpoint_repo.point_selector import format_time


@dataclass(frozen=True)
class Recovery:
    """How long a restore of the whole VM takes. by: what it is estimated from: how fast
    restores were here, or how fast the VM was last read as a whole."""

    seconds: float
    by: Literal["restores", "the last full"]


@dataclass(frozen=True)
class Standing:
    """One VM in one job. key: `history.machine_key`. outcome: of its last run. wanted_s: the RPO,
    None for none. remarks: why the figures are not what one would expect."""

    job: str
    vcenter: str
    key: str
    outcome: MachineOutcome
    reached: Reached
    wanted_s: float | None
    recovery: Recovery | None = None
    remarks: tuple[str, ...] = ()

    @property
    def is_missed(self) -> bool:
        """The newest point is older than it may be, or there is none."""
        return is_missed(self.wanted_s, self.reached)


def plan_standings(
    settings: Settings,
    histories: Sequence[JobHistory],
    now: datetime,
    *,
    repository: Mapping[str, Sequence[Made]] | None = None,
    restore_rate: float | None = None,
) -> list[Standing]:
    """All VMs, job by job, by name. now: local time.

    repository: by key of VM, the points that can be restored, in the order they were made; None
    where the repository is not known, and the records have to do. restore_rate: bytes a second.
    """
    planner = _Planner(settings, histories, now, repository, restore_rate)
    return [
        planner.standing(history, key, machine)
        for history in histories
        for key, machine in sorted(history.machines.items(), key=_by_name)
    ]


class _Planner:
    def __init__(
        self,
        settings: Settings,
        histories: Sequence[JobHistory],
        now: datetime,
        repository: Mapping[str, Sequence[Made]] | None,
        restore_rate: float | None,
    ) -> None:
        self._now = now.timestamp()
        self._settings = settings
        self._wanted = {name: wanted_s(job, now) for name, job in settings.jobs.items()}
        self._repository = repository
        self._rate = restore_rate
        # A point counts for its VM, whichever job has made it.
        recorded: dict[str, list[PointTimes]] = {}
        for history in histories:
            for key, machine in history.machines.items():
                times = believe(machine.points[::-1], self._now)
                recorded.setdefault(key, []).append(times)
        self._recorded = {key: together(several) for key, several in recorded.items()}

    def standing(self, history: JobHistory, key: str, machine: MachineHistory) -> Standing:
        times, there = self._recorded[key], None
        if self._repository is not None:
            stored = self._repository.get(key, ())
            there = {point for point, _ in stored}
            times = together([times, believe(stored, self._now)])
        return Standing(
            history.job,
            self._settings.vcenter_of(self._settings.jobs[history.job]).name,
            key,
            machine.newest,
            reached(times, self._now, there),
            self._wanted[history.job],
            _recovery(machine, self._rate),
            tuple(self._remarks(machine, times, there)),
        )

    def _remarks(
        self, machine: MachineHistory, times: PointTimes, there: set[str] | None
    ) -> Iterator[str]:
        if times.doubted:
            yield (
                f"{len(times.doubted)} of its points count for nothing: they are dated after now "
                "or after a point that was made later, so a clock was wrong"
            )
        if machine.newest.ended > self._now + AHEAD_S:
            yield "its last run is dated in the future: a clock was wrong"
        if there is not None and machine.points:
            point_id, made = machine.points[0]
            # An older one beside newer ones is what retention removes.
            newer = (one for one, time in times.believed if time >= made and one in there)
            if point_id not in there and next(newer, None) is None:
                at = format_time(made)
                yield f"the point that its last good run made, {at}, is not in the repository"


def _recovery(machine: MachineHistory, restore_rate: float | None) -> Recovery | None:
    if machine.last_good is None:
        return None
    size = machine.last_good.size
    if restore_rate is not None:
        return Recovery(size / restore_rate, "restores")
    full = machine.last_full
    if full is None or full.size <= 0 or full.ended <= full.started:
        return None
    return Recovery(size * (full.ended - full.started) / full.size, "the last full")


def _by_name(item: tuple[str, MachineHistory]) -> tuple[str, str]:
    key, machine = item
    return machine.newest.vm, key
