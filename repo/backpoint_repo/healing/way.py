"""What every way of healing is: it is asked for what is wanted, and stores what it has of it."""

from __future__ import annotations

from typing import Protocol

from backpoint_repo.healing.heal_session import HealSession
from backpoint_repo.healing.wanted import Wanted
from backpoint_repo.phase_progress import PhaseProgress


class Way(Protocol):
    """Asked in the order of what they cost, each for what the ones before could not give."""

    @property
    def title(self) -> str:
        """For people: `from parity packs`."""

    def heal(self, wanted: Wanted, session: HealSession, progress: PhaseProgress) -> None:
        """Store what it has of what is wanted; the session is told what could not be read.

        Raises what storing raises.
        """
