"""A proof: what was tried on a restore point to see whether it is good, and what came of it.

Decides what a proof claims: a level counts only with every level below it, and a failed one is told
as loudly as a good one. Pure; where proofs are kept is for `point_proof.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from backpoint_repo.point_selector import format_time


class Level(Enum):
    """What was looked at; each is tried after the ones before it. Has no `<`: see `rank`."""

    STRUCTURE = "structure"
    DATA = "data"
    TREES = "trees"
    BOOT = "boot"

    @property
    def rank(self) -> int:
        """0 for the lowest."""
        return LEVELS.index(self)


LEVELS: Final = tuple(Level)


@dataclass(frozen=True)
class Step:
    """What came of one level. detail: one sentence, what was seen or what is wrong.

    notes: in what way it is less than it could be (volumes that no parser knows, TCG for KVM).
    """

    level: Level
    ok: bool
    duration_s: float
    detail: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proof:
    """at: when it was finished, seconds since 1970. steps: from the lowest level up, none left out;
    behind a failed one there may be more. tool: program and version. host: where it ran. sign: what
    told that the guest lives, after sign_s seconds. proof_id, screenshot_size (bytes, 0 for none)
    and ranges (of the boot trace): as it was stored, see `point_proof.put_proof`.

    Raises ValueError where steps are missing, doubled or out of order.
    """

    point_id: bytes
    at: float
    steps: tuple[Step, ...]
    tool: str
    host: str
    duration_s: float
    sign: str = ""
    sign_s: float | None = None
    accelerator: str = ""
    warnings: tuple[str, ...] = ()
    proof_id: str = ""
    screenshot_size: int = 0
    ranges: int = 0

    def __post_init__(self) -> None:
        levels = tuple(step.level for step in self.steps)
        if not levels or levels != LEVELS[: len(levels)]:
            raise ValueError("a proof's steps are not its levels from the lowest up")

    @property
    def level(self) -> Level:
        """The highest that was tried."""
        return self.steps[-1].level

    @property
    def ok(self) -> bool:
        """Whether all that was tried is good."""
        return all(step.ok for step in self.steps)

    @property
    def proved_level(self) -> Level | None:
        """The highest that is good together with all below it."""
        proved = None
        for step in self.steps:
            if not step.ok:
                break
            proved = step.level
        return proved

    @property
    def failed_level(self) -> Level | None:
        """The lowest that failed."""
        return next((step.level for step in self.steps if not step.ok), None)

    @property
    def words(self) -> str:
        """`boot ok 2026-11-21T02-00-00Z`, `trees FAILED 2026-11-21T02-00-00Z`."""
        failed = self.failed_level
        told = f"{self.level.value} ok" if failed is None else f"{failed.value} FAILED"
        return f"{told} {format_time(self.at)}"


def proof_record(proof: Proof) -> dict[str, Any]:
    """As JSON has it; what is derived is told too."""
    proved, failed = proof.proved_level, proof.failed_level
    return {
        "id": proof.proof_id,
        "point": proof.point_id.hex(),
        "ok": proof.ok,
        "level": proof.level.value,
        "proved_level": proved.value if proved else None,
        "failed_level": failed.value if failed else None,
        "time": format_time(proof.at),
        "at": proof.at,
        "duration_s": round(proof.duration_s, 3),
        "steps": [
            {
                "level": step.level.value,
                "ok": step.ok,
                "duration_s": round(step.duration_s, 3),
                "detail": step.detail,
                "notes": list(step.notes),
            }
            for step in proof.steps
        ],
        "sign": proof.sign,
        "sign_s": None if proof.sign_s is None else round(proof.sign_s, 3),
        "accelerator": proof.accelerator,
        "warnings": list(proof.warnings),
        "tool": proof.tool,
        "host": proof.host,
        "screenshot_size": proof.screenshot_size,
        "trace_ranges": proof.ranges,
    }
