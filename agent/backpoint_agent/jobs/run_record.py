"""What became of one run of a job: every VM it was to back up, with its outcome. Pure data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from backpoint_agent.running.outcome import MachineOutcome


@dataclass(frozen=True)
class RunRecord:
    """number: names the run among all of this agent's. Times in seconds since 1970.

    trouble: why the run as a whole did not do what it should ("the vCenter does not answer"), ""
    if nothing. skipped: VMs that match and the job leaves out, with reasons. removed: points that
    no rule of a job keeps any more: under which name they stood, and their time.
    """

    number: str
    job: str
    vcenter: str
    started: float
    ended: float
    outcomes: tuple[MachineOutcome, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    trouble: str = ""
    removed: tuple[tuple[str, str], ...] = ()

    @property
    def good(self) -> bool:
        """Every VM has its point, and nothing needs a look."""
        return not self.trouble and all(
            outcome.good and not outcome.alarms for outcome in self.outcomes
        )

    @property
    def failed(self) -> tuple[MachineOutcome, ...]:
        """VMs without a point."""
        return tuple(outcome for outcome in self.outcomes if not outcome.good)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"type": "run", **asdict(self), "good": self.good}
