"""One point tried level by level, until a level fails or the asked one is reached.

Decides the order and what of it becomes the proof. How each level is tried is in `structure`,
`data`, `trees` and `boot`; where proofs are kept is for the repository.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from backpoint_fusefs.prove.boot_trial import BootTrial
from backpoint_fusefs.prove.data import unreadable_data
from backpoint_fusefs.prove.trees import look_at_trees
from backpoint_fusefs.prove.trial import Trial
from backpoint_repo.boot_trace import TracedRange
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import BackpointError, ObjectMissing, UsageError
from backpoint_repo.point import Point
from backpoint_repo.point_proof import put_proof
from backpoint_repo.point_structure import StructureProof
from backpoint_repo.proof import LEVELS, Level, Proof, Step
from backpoint_repo.reading import reading
from backpoint_repo.repository import Repository
from backpoint_repo.sizes import format_size
from backpoint_repo.terminal import warn
from backpoint_repo.version import VERSION

_DETAIL_MAX: Final = 3
"""Problems named in a step's sentence; the rest are counted."""


@dataclass(frozen=True)
class ProveTools:
    """What trials need. files: read of each volume. advance: bytes of disk read by the data level.
    boot: None where no boot is asked for."""

    repository: Repository
    structure: StructureProof
    files: int
    chance: random.Random
    advance: Callable[[int], None]
    boot: BootTrial | None = None


@dataclass(frozen=True)
class Proved:
    """The proof, and what belongs to it. stopped: why the next level could not even be tried, which
    is no verdict on the point: its proof ends below."""

    proof: Proof
    screenshot: bytes | None
    trace: Sequence[TracedRange]
    stopped: BackpointError | None = None


class PointGone(UsageError):
    """It was removed while it was tried: there is nothing to be proved."""


def prove_point(
    tools: ProveTools, chosen: PointSummary, level: Level, entering: Callable[[Level], None]
) -> Proved:
    """Try a point up to `level`. entering: called as each level begins.

    Raises PointGone, and what the lowest level raises where it cannot be tried.
    """
    with ExitStack() as held:
        try:
            point = tools.repository.point(chosen.point_id)
            held.enter_context(reading(tools.repository, point, warn))
        except ObjectMissing as error:
            raise PointGone(f"this point of {chosen.vm} has been removed meanwhile") from error
        return _prove(tools, chosen, point, level, entering)


def _prove(
    tools: ProveTools,
    chosen: PointSummary,
    point: Point,
    level: Level,
    entering: Callable[[Level], None],
) -> Proved:
    started, steps, last = time.monotonic(), list[Step](), Trial(ok=True, detail="")
    stopped: BackpointError | None = None
    trials = _trials(tools, chosen, point)
    for one in LEVELS[: level.rank + 1]:
        entering(one)
        began = time.monotonic()
        try:
            last = trials[one]()
        except BackpointError as error:
            if not steps:
                raise
            stopped = error
            break
        took = time.monotonic() - began
        steps.append(Step(one, last.ok, took, last.detail, last.notes))
        if not last.ok:
            break
    proof = Proof(
        point.point_id,
        tools.repository.clock(),
        tuple(steps),
        f"backpoint {VERSION}",
        socket.gethostname(),
        time.monotonic() - started,
        last.sign,
        last.sign_s,
        last.accelerator,
    )
    return Proved(proof, last.screenshot, last.trace, stopped)


def keep_proof(repository: Repository, proved: Proved) -> Proof:
    """Store it beside its point; as it was stored. Raises PointGone, and what a store raises."""
    if all(one.point_id != proved.proof.point_id for one in repository.catalog.refresh()):
        raise PointGone("this point has been removed meanwhile: nothing is kept of its trial")
    return put_proof(repository.sealed, proved.proof, proved.screenshot, proved.trace)


def _trials(
    tools: ProveTools, chosen: PointSummary, point: Point
) -> Mapping[Level, Callable[[], Trial]]:
    def boot() -> Trial:
        assert tools.boot is not None, "a boot needs to be told how"
        return tools.boot.run(chosen)

    return {
        Level.STRUCTURE: lambda: _structure(tools, point),
        Level.DATA: lambda: _data(tools, point),
        Level.TREES: lambda: _trees(tools, point),
        Level.BOOT: boot,
    }


def _structure(tools: ProveTools, point: Point) -> Trial:
    found = tools.structure.look(point)
    seen = f"{found.nodes} map nodes open, {found.chunks} chunks are in packs"
    return _trial(found.problems, seen)


def _data(tools: ProveTools, point: Point) -> Trial:
    problems = unreadable_data(tools.repository, point, tools.advance)
    return _trial(problems, f"{format_size(point.allocated)} read and right")


def _trees(tools: ProveTools, point: Point) -> Trial:
    found = look_at_trees(tools.repository, point, tools.files, tools.chance)
    seen = (
        f"{found.volumes} volumes list, {found.entries} entries seen, "
        f"{found.files} files read ({format_size(found.bytes)})"
    )
    return _trial(found.problems, seen, tuple(found.notes))


def _trial(problems: Sequence[str], seen: str, notes: tuple[str, ...] = ()) -> Trial:
    if not problems:
        return Trial(ok=True, detail=seen, notes=notes)
    named = "; ".join(problems[:_DETAIL_MAX])
    more = len(problems) - _DETAIL_MAX
    return Trial(ok=False, detail=named + (f"; and {more} more" if more > 0 else ""), notes=notes)
