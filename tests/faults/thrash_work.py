"""What is done to the repository from all sides at once, each time by a real command.

Decides what a command may answer, and what follows from its answer for the promises. When it is
killed is drawn elsewhere.
"""

from __future__ import annotations

import itertools
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.thrash_disks import Fleet, State
from faults.thrash_points import Broken, Promise, Promises
from faults.thrash_processes import End, Processes

_HAND: Final = "hand"
_BY_MOUNT: Final = re.compile("a point that mount on .* uses needs a map node that cannot be read")
_CARE: Final = (
    ("scrub", "--oldest-first"),
    ("scrub",),
    ("heal",),
    ("check",),
    ("check", "--read-data"),
    ("rebuild-index",),
)
_PARITY: Final = (
    ("parity", "--set", "3+1"),
    ("parity", "--set", "4+2"),
    ("parity",),
    ("parity", "--verify"),
    ("parity", "--off"),
)


@dataclass(frozen=True)
class Ground:
    """What all who work have in common. states: by label, all that the repository may hold."""

    folder: Path
    fleet: Fleet
    promises: Promises
    processes: Processes
    states: dict[str, State] = field(default_factory=dict)
    hands: threading.Lock = field(default_factory=threading.Lock)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def repo(self) -> Path:
        return self.folder / "repo"


def work_on(ground: Ground, rng: random.Random) -> None:
    """One thing, drawn by lot. Raises Broken."""
    kinds = list(_KINDS)
    rng.choices(kinds, [_KINDS[kind] for kind in kinds])[0](ground, rng)


def back_up(ground: Ground, rng: random.Random) -> None:
    """A machine; where nobody else is at it, mostly by a list of changes."""
    vm = rng.choice(ground.fleet.names)
    begun = ground.fleet.begin_backup(rng, vm, by_list=rng.random() < 0.7)
    if begun is None:
        return
    state, paths = begun
    ground.states[state.label] = state
    lists = [word for path in paths for word in ("--changed-list", str(path))]
    words = ["backup", "image", "--vm", vm, "--format", "raw", "--label", state.label]
    point_id = None
    try:
        words += [*lists, *map(str, state.disks)]
        end = ground.processes.run(*words, rng=rng, meanwhile=lambda: _give_back(ground, rng))
        if not end.code:
            point_id = end.record["id"]
            ground.promises.published(point_id, state)
    finally:
        ground.fleet.end_backup(state, published=point_id is not None)


def prune(ground: Ground, rng: random.Random) -> None:
    """A machine's points, or all."""
    vm = rng.choice([None, *ground.fleet.names])
    _prune(ground, vm, rng.randint(1, 5), rng, lambda: _give_back(ground, rng))


def _prune(
    ground: Ground,
    vm: str | None,
    keep: int,
    rng: random.Random | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> None:
    """vm: None for all. rng, meanwhile: as for a command."""
    number = ground.promises.begin_removal(vm)
    removed = None
    try:
        words = ["prune", *([] if vm is None else [vm]), "--keep-last", str(keep)]
        # 2: there is no point of this machine yet.
        end = ground.processes.run(*words, rng=rng, codes=(0, 2), meanwhile=meanwhile)
        if not end.code:
            removed = {row["id"] for row in end.record["points"] if row["removed"]}
    finally:
        ground.promises.end_removal(number, removed)


def hold(ground: Ground, rng: random.Random) -> None:
    """Granted, or refused because it is going."""
    with ground.hands:
        if promise := ground.promises.choose(rng):
            end = ground.processes.run("hold", promise.selector, rng=rng, codes=(0, 2, 4))
            if not end.code:
                ground.promises.held(promise.point_id, _HAND)
            _refused(ground, promise, end)


def unhold(ground: Ground, rng: random.Random) -> None:
    with ground.hands:
        held = [promise for promise in ground.promises.standing() if _HAND in promise.holders]
        if held:
            promise = rng.choice(held)
            ground.promises.let_go(promise.point_id, _HAND)
            end = ground.processes.run("unhold", promise.selector, rng=rng, codes=(0, 2, 4))
            _refused(ground, promise, end)


def collect(ground: Ground, rng: random.Random) -> None:
    words = ["collect", "--wait", rng.choice(["0s", "0s", "1s", "4s"])]
    if rng.random() < 0.4:
        words += ["--max-repack", rng.choice(["0", "300K", "4M"])]
    if rng.random() < 0.1:
        words += ["--dry-run"]

    def meanwhile() -> None:
        _give_back(ground, rng)
        back_up(ground, rng)

    _collect(ground, *words, rng=rng, meanwhile=meanwhile)


def _collect(
    ground: Ground,
    *words: str,
    rng: random.Random | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> None:
    end = ground.processes.run(*words, rng=rng, codes=(0, 4), meanwhile=meanwhile)
    # A mount may pin what it opened a moment after it had gone: nothing goes while it has it open.
    by_mounts = end.code == 4 and bool(end.out) and all(map(_BY_MOUNT.match, end.record["stopped"]))
    if end.code == 4 and not end.revoked and not by_mounts:
        raise Broken(f"nothing can be collected: {end}")


def _give_back(ground: Ground, rng: random.Random) -> None:
    """As much as can go: what somebody relies on who is stopped now must not."""
    if rng.random() < 0.8:
        _prune(ground, None, 1)
    if rng.random() < 0.5:
        end_the_dead(ground)
    for _ in range(2):
        _collect(ground, "collect", "--wait", "0s")


def restore(ground: Ground, rng: random.Random) -> None:
    """What has its name is whole, also when the command was killed."""
    promise = ground.promises.choose(rng)
    if promise is None:
        return
    disk = rng.randrange(len(promise.state.disks))
    target = ground.folder / "restored" / f"{next(ground.numbers)}.raw"
    words = ["restore", promise.selector, "--disk", str(disk), "-o", str(target)]
    end = ground.processes.run(*words, rng=rng, codes=(0, 2, 4))
    if not end.code or target.exists():
        if target.read_bytes() != promise.state.disks[disk].read_bytes():
            raise Broken(f"{promise.selector}: disk {disk} was restored wrongly to {target}")
        target.unlink()
    _refused(ground, promise, end)


def look_after(ground: Ground, rng: random.Random) -> None:
    """Scrub, heal, check, a new index: nothing is ever damaged here."""
    ground.processes.run(*rng.choice(_CARE), rng=rng)


def keep_parity(ground: Ground, rng: random.Random) -> None:
    # 1: where it must wait for a backup. 2: there is none now. 4: another run is or was at it.
    end = ground.processes.run(*rng.choice(_PARITY), rng=rng, codes=(0, 1, 2, 4))
    if end.code == 1 and not end.record["in_doubt"]:
        raise Broken(f"parity finds damage: {end}")


def end_the_dead(ground: Ground, rng: random.Random | None = None) -> None:
    """Leases of processes that are gone, as a collector does after ten minutes."""
    processes = ground.processes
    for lease in processes.run("leases").record["leases"]:
        if not Path(f"/proc/{lease['pid']}").exists():
            processes.run("leases", "--end", lease["session"], rng=rng, codes=(0, 2))


def _refused(ground: Ground, promise: Promise, end: End) -> None:
    """Only a point that may be gone can be refused."""
    fair = not end.code or end.killed or end.revoked
    if not fair and not ground.promises.may_be_gone(promise.point_id):
        raise Broken(f"{promise.selector} is refused, and must be there: {end}")


_KINDS: Final[dict[Callable[[Ground, random.Random], None], float]] = {
    back_up: 45,
    prune: 7,
    collect: 20,
    hold: 4,
    unhold: 3,
    restore: 5,
    look_after: 10,
    keep_parity: 4,
    end_the_dead: 6,
}
