"""The last level: does the point's machine come up? In a session that is discarded, cut off from
every network, until a sign of life.

Decides what a boot claims: the sign that was seen and how long it took, nothing about what the
guest would do for its users. How a machine is started and watched is in `boot/`.
"""

from __future__ import annotations

from typing import Protocol

from backpoint_fusefs.prove.trial import Trial
from backpoint_repo.point import Point


class BootTrial(Protocol):
    """Boots one point after the other."""

    def run(self, point: Point) -> Trial: ...
