"""Which backups the repository has of each VM that the records know, whoever made them.

Decides under which name a VM's points are sought: the one its runs stored it as; for a VM that none
has stored, its own, if the points there say that they are its. And what is no backup: a point that
a live session wrote, which production never was in (`Point.branch`). Changes nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from operator import attrgetter
from typing import Final

from backpoint_agent.report.history import JobHistory
from backpoint_agent.report.rpo import GAPS_OF, Made
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.repository import Repository

READS_MAX: Final = 1000
"""For all VMs together: about 0.2 s on a local disk, 20 s where a read takes 20 ms."""


def read_points(
    repository: Repository, histories: Iterable[JobHistory]
) -> tuple[dict[str, list[Made]], list[str]]:
    """By key of VM, in the order the points were made; and what cannot be read.

    Raises StoreUnavailable and what else a repository raises.
    """
    histories = tuple(histories)
    by_name: dict[str, list[PointSummary]] = {}
    for point in repository.catalog.refresh():
        by_name.setdefault(point.vm, []).append(point)
    for points in by_name.values():
        points.sort(key=attrgetter("generation", "created"))
    sieve = _Sieve(repository, _recorded(histories))
    found: dict[str, list[Made]] = {}
    for key, names in _names(histories).items():
        for name, is_stored in names.items():
            points = sieve.backups(by_name.get(name, []))
            if points and (is_stored or _is_of(repository, points[-1], key)):
                made = [(point.point_id.hex(), point.time) for point in points]
                found.setdefault(key, []).extend(made)
    return found, [*repository.catalog.broken.values(), *sieve.unreadable]


class _Sieve:
    """Takes out what is no backup. A listing does not tell, so points are read: those that no run
    recorded, from the newest back to the first backup, and of those before it, among which gaps are
    sought, as many as there are reads left."""

    def __init__(self, repository: Repository, recorded: Container[str]) -> None:
        self._repository = repository
        self._recorded = recorded
        self._left = READS_MAX
        self.unreadable: list[str] = []

    def backups(self, points: Sequence[PointSummary]) -> list[PointSummary]:
        """points: of one VM, in the order they were made."""
        kept: list[PointSummary] = []
        for point in reversed(points):
            is_known = point.point_id.hex() in self._recorded
            is_far = bool(kept) and (len(kept) > GAPS_OF or self._left <= 0)
            if is_known or is_far or self._is_backup(point):
                kept.append(point)
        return kept[::-1]

    def _is_backup(self, summary: PointSummary) -> bool:
        self._left -= 1
        try:
            return not self._repository.point(summary.point_id).branch
        except ObjectMissing:
            return False  # removed since it was listed
        except (ObjectDamaged, UnknownFormat) as error:
            self.unreadable.append(str(error))
            return False


def _recorded(histories: Iterable[JobHistory]) -> set[str]:
    """Ids of points that runs made: backups, all of them."""
    return {
        point
        for history in histories
        for machine in history.machines.values()
        for point, _ in machine.points
    }


def _names(histories: Iterable[JobHistory]) -> dict[str, dict[str, bool]]:
    """Of each VM, the names its points may stand under, and whether a run has stored it so."""
    names: dict[str, dict[str, bool]] = {}
    for history in histories:
        for key, machine in history.machines.items():
            own = names.setdefault(key, {})
            if machine.stored_as:
                own[machine.stored_as] = True
            else:
                own.setdefault(machine.newest.vm, False)
    return names


def _is_of(repository: Repository, summary: PointSummary, key: str) -> bool:
    try:
        capture = repository.point(summary.point_id).capture
    except (ObjectMissing, ObjectDamaged, UnknownFormat):
        return False
    return f"{capture.get('vcenter')}/{capture.get('instance')}" == key
