"""How long work in phases tells what it does: to a bar on a terminal, to a test, or to nobody.

Knows no terminal (`progress.py`).
"""

from __future__ import annotations

from typing import Protocol


class PhaseProgress(Protocol):
    """Told what is being done."""

    def phase(self, name: str, total: int) -> None:
        """A new phase with `total` steps begins."""

    def advance(self, steps: int) -> None:
        """So many steps are done."""


class Silent:
    """For callers who want none."""

    def phase(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""
