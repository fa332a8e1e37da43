"""What the records of one job's runs say together: its VMs, the newest of each, and their points.

Fed with records, the last saved first, until it has what is asked. Decides which VMs are the job's:
those of its newest run that dealt with all of them, and those that runs since have dealt with.
Bounded: what it keeps of a VM does not grow with the number of runs. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.rpo import GAPS_OF
from backpoint_agent.running.outcome import MachineOutcome

LOOK_BACK: Final = 200
"""Records that are looked at: a VM that had no point in so many runs has none that they know."""

_FORGOTTEN_RUNS: Final = 10
_FORGOTTEN_S: Final = 30 * 86_400.0


@dataclass
class MachineHistory:
    """One VM in one job. points: id and time of each, the last made first, a limited number.

    newest: the outcome of its last run. stored_as: its name in the repository, "" if not known.
    last_good: the last outcome with a point. last_full: the last that read all of every disk.
    """

    newest: MachineOutcome
    points: list[tuple[str, float]] = field(default_factory=list)
    stored_as: str = ""
    last_good: MachineOutcome | None = None
    last_full: MachineOutcome | None = None

    @property
    def is_complete(self) -> bool:
        """An older record would add nothing that is used."""
        return len(self.points) >= GAPS_OF

    def take(self, outcome: MachineOutcome) -> None:
        """One outcome older than those before."""
        self.stored_as = self.stored_as or outcome.stored_as
        if not outcome.good or outcome.point_time is None:
            return
        self.last_good = self.last_good or outcome
        if not self.is_complete:
            self.points.append((outcome.point, outcome.point_time))
        if self.last_full is None and _is_full(outcome):
            self.last_full = outcome


@dataclass
class JobHistory:
    """One job. newest: its last run that was started. not_started: why a start since was none.

    machines: by identity.
    """

    job: str
    newest: RunRecord | None = None
    not_started: str = ""
    machines: dict[str, MachineHistory] = field(default_factory=dict)
    _taken: int = 0
    _with_machines: int = 0
    _first_ended: float = 0.0
    _knows_all: bool = False

    @property
    def is_complete(self) -> bool:
        """An older record would add nothing that is used."""
        return self._taken >= LOOK_BACK or (
            self._knows_all and all(machine.is_complete for machine in self.machines.values())
        )

    def take(self, record: RunRecord) -> None:
        """One record older than those before."""
        self._taken += 1
        if was_not_started(record):
            if self.newest is None and not self.not_started:
                self.not_started = record.trouble
            return
        if self.newest is None:
            self.newest = record
        if not record.outcomes:
            return
        self._with_machines += 1
        self._first_ended = self._first_ended or record.ended
        # A run of one VM may be one that a user asked for: it says nothing of the others, until
        # there were none but such runs for long.
        long_ago = record.ended < self._first_ended - _FORGOTTEN_S
        self._knows_all |= self._with_machines > _FORGOTTEN_RUNS and long_ago
        for outcome in record.outcomes:
            key = machine_key(outcome)
            if key not in self.machines and not self._knows_all:
                self.machines[key] = MachineHistory(outcome)
            if key in self.machines:
                self.machines[key].take(outcome)
        self._knows_all |= not record.trouble and len(record.outcomes) > 1


def read_history(job: str, records: Iterable[RunRecord]) -> JobHistory:
    """records: the last saved first; no more of them are taken than are needed."""
    history = JobHistory(job)
    for record in records:
        history.take(record)
        if history.is_complete:
            break
    return history


def machine_key(outcome: MachineOutcome) -> str:
    """What tells the VM from all others; a few have no instanceUuid."""
    known = not outcome.identity.endswith("/")
    return outcome.identity if known else f"{outcome.identity}{outcome.moref}"


def was_not_started(record: RunRecord) -> bool:
    """A start that the scheduler only reports, because the window was closed or the job running:
    it took no time at all."""
    return not record.outcomes and bool(record.trouble) and record.started == record.ended


def _is_full(outcome: MachineOutcome) -> bool:
    return bool(outcome.disks) and all(disk.how != "changed" for disk in outcome.disks)
