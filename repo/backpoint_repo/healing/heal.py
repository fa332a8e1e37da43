"""Stores lost content anew: finds what is wanted, and asks one way after another for it.

Map nodes that were healed show what is wanted under them, so it goes round until none was. Damage
marks stay: a good copy elsewhere makes every point whole that needs it. Decides the order of
things; where content comes from is for the ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backpoint_repo.check_report import HurtRange
from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.healing.heal_report import Healed, HealReport
from backpoint_repo.healing.heal_session import HealSession
from backpoint_repo.healing.parity_packs import ParityPacks
from backpoint_repo.healing.stored_copies import own_copies
from backpoint_repo.healing.wanted import Wanted
from backpoint_repo.healing.wanted_walk import WantedWalk
from backpoint_repo.healing.way import Way
from backpoint_repo.index import Index
from backpoint_repo.index_segment import PackRef
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.harm import StoredPoints, find_harm, load_points


@dataclass
class _Course:
    """How far healing has come. healed: way -> chunks, nodes. stored: sealed bytes written."""

    points: tuple[Point, ...]
    unreadable: list[str]
    notes: list[str] = field(default_factory=list)
    healed: dict[str, tuple[int, int]] = field(default_factory=dict)
    stored: int = 0


def heal(
    repository: Repository, ways: Sequence[Way], progress: PhaseProgress, vm: str | None = None
) -> HealReport:
    """Heal what the points (of one VM, or of all) need, from this repository and then by `ways`.

    repository: opened for this; its index will not answer what is damaged any more. With the agent
    credential chunks that a check marked are not believed again. Raises UnknownFormat where this
    program must not write, and what a store raises; what was stored until then is found by the
    next one.
    """
    stored = load_points(repository.sealed)  # before the index: what points need is in it then
    course = _course(stored, vm)
    ways = [
        own_copies(repository.sealed, repository.index),
        ParityPacks(repository.sealed, repository.index),
        *ways,
    ]
    with HealSession(repository) as session:
        while True:
            wanted, rotten = _walk(repository, course, progress)
            session.mark(rotten)
            nodes = wanted.nodes
            for way in ways:
                if len(wanted):
                    _ask(way, wanted, session, progress, course.healed)
            session.flush()
            if wanted.nodes == nodes:
                break
        course.notes += session.notes
        course.stored = session.stored
    return _report(repository, stored, course, wanted, progress)


def plan_heal(repository: Repository, progress: PhaseProgress, vm: str | None = None) -> HealReport:
    """What is wanted now, as far as it can be seen. Writes nothing."""
    stored = load_points(repository.sealed)
    course = _course(stored, vm)
    repository.index.exclude(read_exclusions(repository.sealed))
    repository.index.refresh()
    repository.index.learn_unlisted_packs()
    repository.index.notice_missing_packs()
    wanted, _ = _walk(repository, course, progress)
    return _report(repository, stored, course, wanted, progress)


def _course(stored: StoredPoints, vm: str | None) -> _Course:
    points = tuple(point for point in stored.points if vm in (None, point.vm))
    return _Course(points, list(stored.blocked))


def _walk(
    repository: Repository, course: _Course, progress: PhaseProgress
) -> tuple[Wanted, set[tuple[bytes, PackRef]]]:
    """What is wanted, and copies of map nodes that turned out bad and that nobody has marked."""
    progress.phase("looking for what is lost, points", len(course.points))
    walk = WantedWalk(repository.index, repository.nodes.load)
    for point in course.points:
        walk.add(point)
        progress.advance(1)
    course.unreadable += walk.rot.unreadable
    rotten = {
        (node_id, place.pack)
        for node_id in walk.rot.rotten
        for place in repository.index.copies(node_id)
    }
    return walk.wanted(), rotten


def _ask(
    way: Way,
    wanted: Wanted,
    session: HealSession,
    progress: PhaseProgress,
    healed: dict[str, tuple[int, int]],
) -> None:
    all_before, nodes_before = len(wanted), wanted.nodes
    way.heal(wanted, session, progress)
    nodes = nodes_before - wanted.nodes
    chunks = all_before - len(wanted) - nodes
    before = healed.get(way.title, (0, 0))
    healed[way.title] = (before[0] + chunks, before[1] + nodes)


def _report(
    repository: Repository,
    stored: StoredPoints,
    course: _Course,
    wanted: Wanted,
    progress: PhaseProgress,
) -> HealReport:
    healed = tuple(Healed(way, *counts) for way, counts in course.healed.items())
    unreadable, lost = course.unreadable, tuple[HurtRange, ...]()
    if len(wanted):
        bad = _bad_copies(repository.index, wanted)
        harm = find_harm(repository, course.points, bad, progress)
        unreadable, lost = [*unreadable, *harm.unreadable], harm.hurt
    return HealReport(
        points=len(course.points),
        chunks=len(wanted) - wanted.nodes + sum(item.chunks for item in healed),
        nodes=wanted.nodes + sum(item.nodes for item in healed),
        stored=course.stored,
        healed=healed,
        lost=lost,
        broken=stored.broken,
        unreadable=tuple(dict.fromkeys(unreadable)),
        notes=tuple(dict.fromkeys([*repository.index.broken_segments, *course.notes])),
    )


def _bad_copies(index: Index, wanted: Wanted) -> dict[tuple[bytes, PackRef], str]:
    """Every copy of what is wanted still, with what is wrong with it."""
    excluded = index.exclusions
    bad = {}
    for batch in wanted.batches():
        for number in batch:
            _, content_id = wanted.key(number)
            for place in index.copies(content_id):
                copy = (content_id, place.pack)
                problem = "its pack is missing or cut short"
                if copy in excluded.damaged:
                    problem = "it is damaged"
                elif place.pack in excluded.trashed:
                    problem = "its pack is in trash"
                bad[copy] = problem
    return bad
