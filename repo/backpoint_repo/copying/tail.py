"""A replica kept in step: rounds of copying what is newer than what it has, and how far it is
behind.

Decides when a round is tried again after a place was away, and what "behind" means. What is copied
is decided in `plan.py`, how in `copier.py`; what is shown, and when it ends, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from backpoint_repo.catalog import PointSummary
from backpoint_repo.copying.copier import Copier, Fate, Outcome
from backpoint_repo.copying.plan import Stock, plan_newer

FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
"""Between attempts while a place is away: doubled from the first to the longest."""


@dataclass(frozen=True)
class VmStanding:
    """How far the replica of one VM is. newest: of the points it has, None without any. pending:
    points not there yet. oldest_pending: when the first of them was made, seconds since 1970."""

    vm: str
    newest: PointSummary | None
    pending: int = 0
    oldest_pending: float | None = None

    def lag_s(self, now: float) -> float:
        """What a loss of the source now would cost: the age of the oldest point not there."""
        return 0.0 if self.oldest_pending is None else max(0.0, now - self.oldest_pending)


@dataclass(frozen=True)
class Standing:
    """Of all VMs, as of `now`."""

    now: float
    vms: Sequence[VmStanding] = field(default_factory=tuple)

    @property
    def pending(self) -> int:
        """Points not there yet."""
        return sum(one.pending for one in self.vms)

    @property
    def behind(self) -> list[VmStanding]:
        """VMs of which something is not there yet."""
        return [one for one in self.vms if one.pending]

    @property
    def lag_s(self) -> float:
        """Of the VM that is furthest behind."""
        return max((one.lag_s(self.now) for one in self.vms), default=0.0)


class Tail:
    """For one thread. Everything is read from the repositories in each round."""

    def __init__(self, copier: Copier, patterns: Sequence[str] = (), since: float = 0.0) -> None:
        """patterns: names or shell patterns of VMs, which need not be there yet; all without any.
        since: for VMs of which the replica has nothing."""
        self._copier = copier
        self._patterns = patterns
        self._since = since
        self._done: set[bytes] = set()
        """Points that were dealt with: what retention takes there must not come back, and what is
        damaged here is told once."""

    def look(self, now: float) -> tuple[Standing, list[PointSummary]]:
        """How far the replica is, and what it lacks. now: seconds since 1970. Raises what a store
        raises."""
        self._copier.look()
        source, target = self._copier.source, self._copier.target
        vms = {point.vm for point in source.points if self._is_chosen(point.vm)}
        newer = plan_newer(source, target, vms, self._since)
        plan = [point for point in newer if point.point_id not in self._done]
        return standing(source, target, vms, plan, now), plan

    def catch_up(
        self, plan: Sequence[PointSummary], copy: Callable[[PointSummary], Outcome]
    ) -> Iterator[Outcome]:
        """Copy what `look` found. What cannot be read for now keeps later points of its VM waiting.

        Raises as `Copier.copy`.
        """
        waiting: set[str] = set()
        for point in plan:
            if point.vm in waiting:
                continue
            outcome = copy(point)
            if outcome.fate is Fate.UNREACHED:
                waiting.add(point.vm)
            else:
                self._done.add(point.point_id)
            yield outcome

    def _is_chosen(self, vm: str) -> bool:
        return not self._patterns or any(
            vm == pattern or fnmatchcase(vm, pattern) for pattern in self._patterns
        )


def standing(
    source: Stock, target: Stock, vms: set[str], plan: Sequence[PointSummary], now: float
) -> Standing:
    """plan: what is to be copied."""
    there = target.by_identity()
    pending: dict[str, list[float]] = {}
    for point in plan:
        pending.setdefault(point.vm, []).append(point.created)
    found = []
    for vm, points in sorted(source.by_vm(vms.__contains__).items()):
        common = [point for point in points if source.identity(point) in there]
        own = pending.get(vm, [])
        newest = max(common, key=lambda point: point.time, default=None)
        found.append(VmStanding(vm, newest, len(own), min(own, default=None)))
    return Standing(now, found)


def pauses(every_s: float) -> Iterator[float]:
    """Seconds to wait after each failure in a row. every_s: between rounds when all is well."""
    pause = min(FIRST_PAUSE_S, every_s)
    while True:
        yield pause
        pause = min(2 * pause, max(LONGEST_PAUSE_S, every_s))
