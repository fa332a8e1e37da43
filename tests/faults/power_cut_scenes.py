"""What a repository is doing when the power is cut, and what it must be afterwards.

A scene prepares a repository, acts on it while all is written down, and acts again on what the cut
left. Labels of points say what they must read as. Decides what was promised by when; which disks
a cut leaves is for `power_cut_disk.py`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from backpoint_repo import pack_stream
from backpoint_repo.errors import NotARepository
from backpoint_repo.repository import Repository, create_repository, open_repository
from backpoint_repo.store.local import LocalStore
from faults.power_cut_disk import Disk, disks_after_cuts, unsynced
from faults.power_cut_journal import Journal, Recorder
from small_repository import (
    CHEAP,
    PASSPHRASE,
    SMALL_CHUNKS,
    StandingClock,
    assert_clean,
    back_up,
    read_disk,
)
from synthetic_disk import SyntheticDisk

SAMPLES: Final = int(os.environ.get("BACKPOINT_POWER", "1"))
"""Random fates at each cut, beside the simple ones."""
THOROUGH: Final = "BACKPOINT_POWER" in os.environ
MOST: Final = 60
FEW: Final = 8
DISK_SIZE: Final = 320 << 10
POINT: Final = "point "
GOING: Final = "going "
REMOVED: Final = "removed "
REPOSITORY: Final = "repository"
PACK_SIZE: Final = 96 << 10
CHANGES: Final = ((8 << 10, 40 << 10), (200 << 10, 20 << 10))


@dataclass(frozen=True)
class Scene:
    """All get the folder of the repository. act: in one go, with its promises. again: what a user
    does after the cut; must work on whatever is left. holds: checks promises of the scene's own."""

    prepare: Callable[[Path], None]
    act: Callable[[Path, Journal], None]
    again: Callable[[Path], None]
    holds: Callable[[Path, frozenset[str]], None] = lambda _root, _promised: None
    patches: tuple[tuple[ModuleType, str, int], ...] = ()

    @contextmanager
    def small(self) -> Iterator[None]:
        """With packs so small that there are several, and what else the scene wants small."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pack_stream, "PACK_SIZE", PACK_SIZE)
            for module, name, value in self.patches:
                patch.setattr(module, name, value)
            yield


def place(top: Path) -> Path:
    """Of the repository: two folders deep, so that init has parents to make."""
    return top / "made" / "repository"


def opened(root: Path) -> Repository:
    """As a process that has just begun sees it."""
    return open_repository(LocalStore(root), PASSPHRASE, StandingClock())


def initialised(root: Path) -> Repository:
    """Made where there is none."""
    try:
        return opened(root)
    except NotARepository:
        return create_repository(
            LocalStore(root), PASSPHRASE, SMALL_CHUNKS, cost=CHEAP, clock=StandingClock()
        )


def disk_of(label: str) -> SyntheticDisk:
    """ "<seed> <day>": each day differs from the one before in CHANGES alone."""
    seed, day = map(int, label.split())
    disk = SyntheticDisk(DISK_SIZE, name=label)
    disk.write(0, random.Random(f"{seed}").randbytes(DISK_SIZE // 2))
    for number in range(1, day + 1):
        for offset, length in CHANGES:
            disk.write(offset, random.Random(f"{seed} {number}").randbytes(length))
    return disk


def stored(root: Path, label: str, changed: Sequence[tuple[int, int]] | None = None) -> None:
    """A point of this label, unless there is one."""
    repository = opened(root)
    if label not in {point.label for point in repository.catalog.refresh()}:
        back_up(repository, f"vm {label.split()[0]}", disk_of(label), changed=changed, label=label)


def assert_survives(scene: Scene, disks: Sequence[Disk], scratch: Path) -> None:
    """Every one of these disks is a good repository, and goes on being one."""
    for number, disk in enumerate(disks):
        top = scratch / f"{number}"
        top.parent.mkdir(parents=True, exist_ok=True)
        disk.write(top)
        try:
            assert_good(place(top), disk.promised, scene)
        except BaseException as error:
            error.add_note(f"cut after step {disk.cut}, {disk.fate}, promised {disk.promised}")
            raise


def assert_good(root: Path, promised: frozenset[str], scene: Scene) -> None:
    """Before and after it is acted on again."""
    try:
        opened(root)
    except NotARepository:
        assert REPOSITORY not in promised
    else:
        assert_reads(root, promised)
        scene.holds(root, promised)
    scene.again(root)
    assert_reads(root, promised)


def assert_reads(root: Path, promised: frozenset[str]) -> None:
    """Clean; what was published is there, what was removed is not; every point reads right."""
    repository = opened(root)
    assert_clean(repository)
    points = repository.catalog.refresh()
    labels = {point.label for point in points}
    wanted = _those(promised, POINT) - _those(promised, GOING)
    removed = _those(promised, REMOVED)
    assert wanted <= labels, "a published point is gone"
    assert not removed & labels, "a removed point is back"
    assert not repository.catalog.broken
    for point in points:
        content = read_disk(repository, repository.point(point.point_id).disks[0])
        assert content == disk_of(point.label).content(0, DISK_SIZE), point.label


def _those(promised: frozenset[str], prefix: str) -> set[str]:
    return {what.removeprefix(prefix) for what in promised if what.startswith(prefix)}


def try_scene(
    scene: Scene, tmp: Path, samples: int = SAMPLES, *, thorough: bool = THOROUGH
) -> None:
    """Cut the power everywhere in one run of it. Not thorough: MOST of the disks at most."""
    top = tmp / "recorded"
    top.mkdir()
    with scene.small():
        scene.prepare(place(top))
        recorder = Recorder(top)
        with recorder.running() as journal:
            scene.act(place(top), journal)
        disks = disks_after_cuts(journal, 1, samples)
        if not thorough and len(disks) > MOST:
            disks = random.Random(len(disks)).sample(disks, MOST)
        assert_survives(scene, disks, tmp / "after")


def try_two_processes(
    first: Scene, second: Scene, tmp: Path, samples: int = SAMPLES, *, thorough: bool = THOROUGH
) -> None:
    """Kill the first before each of its calls, run the second, then cut the power.

    Where the first left nothing behind that was not synced, it is a kill like any other. Not
    thorough: at a few calls, and a few of the disks of each.
    """
    rng = random.Random(f"{tmp.name}")
    with first.small():
        calls = range(_calls_of(first, tmp / "counted"))
        for call in calls if thorough else sorted(rng.sample(calls, min(FEW, len(calls)))):
            top = tmp / f"{call}"
            top.mkdir()
            first.prepare(place(top))
            recorder = Recorder(top)
            with recorder.running() as journal:
                with recorder.killed_before(call):
                    first.act(place(top), Journal())
                if not unsynced(journal, len(journal.steps)):
                    continue
                second.act(place(top), journal)
            journal.before = len(journal.steps)
            disks = disks_after_cuts(journal, call, samples)
            chosen = disks if thorough else rng.sample(disks, min(FEW, len(disks)))
            assert_survives(second, chosen, top / "after")


def _calls_of(scene: Scene, top: Path) -> int:
    """How many changing calls a whole run makes."""
    top.mkdir()
    scene.prepare(place(top))
    recorder = Recorder(top)
    with recorder.running() as journal, recorder.killed_before(1 << 30):
        scene.act(place(top), journal)
    return recorder.calls
