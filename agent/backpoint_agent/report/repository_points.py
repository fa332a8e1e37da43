"""Which backups the repository has of each VM that the records know, whoever made them.

Decides under which name a VM's points are sought: the one its runs stored it as; for a VM that none
has stored, its own, if the points there say that they are its. And what is no backup: a point that
a live session wrote, which production never was in (`Point.branch`). Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from backpoint_agent.report.history import JobHistory
from backpoint_agent.report.rpo import Made
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.repository import Repository


def read_points(
    repository: Repository, histories: Iterable[JobHistory]
) -> tuple[dict[str, list[Made]], list[str]]:
    """By key of VM, in the order the points were made; and what cannot be read.

    Raises StoreUnavailable and what else a repository raises.
    """
    by_name: dict[str, list[PointSummary]] = {}
    for point in repository.catalog.refresh():
        if not point.branch:
            by_name.setdefault(point.vm, []).append(point)
    for points in by_name.values():
        points.sort(key=attrgetter("generation", "created"))
    found: dict[str, list[Made]] = {}
    for key, names in _names(histories).items():
        for name, is_stored in names.items():
            points = by_name.get(name, [])
            if points and (is_stored or _is_of(repository, points[-1], key)):
                made = [(point.point_id.hex(), point.time) for point in points]
                found.setdefault(key, []).extend(made)
    return found, list(repository.catalog.broken.values())


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
