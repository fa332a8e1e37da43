"""A step of the reaper: what is to be done about one leftover, and what became of it. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backpoint_agent.effect import Effect

Action = Literal[
    "close",  # nothing is left of it: the ledger is told
    "keep",  # it cannot be undone now, or by a program: stays open, somebody has to know
    "tell",  # not ours, wanted, or not asked for: only told
    "thaw",
    "detach",
    "abort-lease",
    "remove-snapshot",
    "consolidate",
    "track-changes",
    "destroy",
    "end-live",
    "unmount",
]
Certainty = Literal["certain", "by name", "likely"]
Result = Literal["planned", "done", "kept", "failed", "told"]


@dataclass(frozen=True)
class Step:
    """vm: moref of the VM that is acted on; target: the snapshot's or lease's moref or the disk's
    device key, "" where the action needs none. what and why are for people; certainty: how sure it
    is that the leftover is ours. effect: None for what no ledger knows."""

    action: Action
    vm: str
    vm_name: str
    what: str
    why: str
    certainty: Certainty = "certain"
    target: str = ""
    effect: Effect | None = None


@dataclass(frozen=True)
class Outcome:
    """said: what was done, or why not."""

    step: Step
    result: Result
    said: str = ""

    @property
    def is_open(self) -> bool:
        """Something of ours is still there, or may be."""
        return self.result in ("kept", "failed")

    def record(self, vcenter: str) -> dict[str, Any]:
        """As JSON; vcenter: its name in the configuration."""
        effect = self.step.effect
        return {
            "vcenter": vcenter,
            "vm": self.step.vm,
            "vm_name": self.step.vm_name,
            "effect": effect.number if effect else None,
            "kind": effect.kind if effect else None,
            "action": self.step.action,
            "what": self.step.what,
            "why": self.step.why,
            "certainty": self.step.certainty,
            "result": self.result,
            "said": self.said,
        }
