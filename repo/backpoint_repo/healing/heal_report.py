"""What healing came to, for a person and for a script. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from backpoint_repo.check_report import DamagedObject, HurtRange


@dataclass(frozen=True)
class Healed:
    """What one way gave. chunks, nodes: how many ids have a good copy again."""

    way: str
    chunks: int
    nodes: int


@dataclass(frozen=True)
class HealReport:
    """points: looked at. chunks, nodes: ids that were or are wanted. stored: sealed bytes written.

    lost: what is wanted still, as the ranges of points it hurts; broken: points that cannot be read
    at all. unreadable: what of the repository could not be looked at now. notes: what else is
    to be known, as what could not be read where healing content was looked for.
    """

    points: int
    chunks: int
    nodes: int
    stored: int
    healed: tuple[Healed, ...] = ()
    lost: tuple[HurtRange, ...] = ()
    broken: tuple[DamagedObject, ...] = ()
    unreadable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Nothing that a point needs is known to be lost."""
        return not (self.lost or self.broken)
