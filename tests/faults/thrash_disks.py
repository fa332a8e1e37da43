"""Virtual machines that live while they are backed up: disks that a guest would have changed.

Decides what is written: new content, content that others have or had (also such as nobody has any
more), zeros. Every state that a backup was offered is kept as files until nobody can ask for it.
Knows nothing of repositories.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

_BLOCK: Final = 4096
_POOL_RUNS: Final = 40
_RUN_BLOCKS: Final = (1, 64)
_REVERTED: Final = 0.35
_SNAPSHOTS: Final = 3
_SIZES: Final = {
    "web": (2 << 20,),
    "db": (3 << 20, (1 << 20) + 513 * 7),
    "mail": (5 << 20,),
    "tiny": (70_000,),
}


@dataclass(frozen=True)
class State:
    """What a machine's disks held at one moment: disk0.raw, ... in a folder. label: unique."""

    label: str
    vm: str
    folder: Path

    @property
    def disks(self) -> list[Path]:
        return sorted(self.folder.glob("*.raw"))

    def drop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class _Machine:
    """snapshots: contents that it goes back to now and then. recent: states of which one may be the
    newest point's. under_way: backups of it. alone: the one that runs relies on being the only one.
    """

    disks: list[bytearray]
    snapshots: list[list[bytes]] = field(default_factory=list)
    recent: list[State] = field(default_factory=list)
    under_way: int = 0
    alone: bool = False


class Fleet:
    """All machines. Thread-safe."""

    def __init__(self, folder: Path, seed: str) -> None:
        rng = random.Random(f"{seed} disks")
        self._folder = folder
        self._pool = [rng.randbytes(_BLOCK * rng.randint(*_RUN_BLOCKS)) for _ in range(_POOL_RUNS)]
        self._machines = {
            vm: _Machine([self._filled(rng, size) for size in sizes])
            for vm, sizes in _SIZES.items()
        }
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._machines)

    def begin_backup(
        self, rng: random.Random, vm: str, *, by_list: bool
    ) -> tuple[State, list[Path]] | None:
        """The guest goes on, then its disks are as in the state returned.

        by_list: with a list for each disk of what may differ from the newest point, where no other
        backup of this machine runs. None where one runs that relies on that.
        """
        with self._lock:
            machine = self._machines[vm]
            if machine.alone:
                return None
            self._live(rng, machine)
            state = self._keep(vm, machine.disks)
            machine.alone = by_list and not machine.under_way and bool(machine.recent)
            lists = _write_changes(state, machine.recent) if machine.alone else []
            machine.recent.append(state)
            machine.under_way += 1
            return state, lists

    def end_backup(self, state: State, *, published: bool) -> None:
        """Over, killed or not; published: for sure."""
        with self._lock:
            machine = self._machines[state.vm]
            machine.under_way -= 1
            if published and machine.alone:
                machine.recent = [state]
            machine.alone = False

    def altered(self, state: State, disk: str, offset: int, data: bytes) -> State:
        """A copy of a state in which this was written."""
        with self._lock:
            copy = self._copy(state)
        with (copy.folder / disk).open("r+b") as file:
            file.seek(offset)
            file.write(data)
        return copy

    def copied(self, state: State) -> State:
        """The same under a label of its own."""
        with self._lock:
            return self._copy(state)

    def may_be_parent(self, state: State) -> bool:
        """Whether lists of changes are made against this state."""
        with self._lock:
            return state in self._machines[state.vm].recent

    def _live(self, rng: random.Random, machine: _Machine) -> None:
        if machine.snapshots and rng.random() < _REVERTED:
            machine.disks = [bytearray(disk) for disk in rng.choice(machine.snapshots)]
        for _ in range(rng.randint(0, 4)):
            self._write(rng, rng.choice(machine.disks))
        if rng.random() < _REVERTED:
            kept = rng.sample(machine.snapshots, min(len(machine.snapshots), _SNAPSHOTS - 1))
            machine.snapshots = [*kept, [bytes(disk) for disk in machine.disks]]

    def _copy(self, state: State) -> State:
        copy = self._new_state(state.vm)
        for disk in state.disks:
            shutil.copyfile(disk, copy.folder / disk.name)
        return copy

    def _keep(self, vm: str, disks: list[bytearray]) -> State:
        state = self._new_state(vm)
        for number, disk in enumerate(disks):
            (state.folder / f"disk{number}.raw").write_bytes(disk)
        return state

    def _new_state(self, vm: str) -> State:
        label = f"state {next(self._numbers)}"
        folder = self._folder / label.replace(" ", "-")
        folder.mkdir(parents=True)
        return State(label, vm, folder)

    def _filled(self, rng: random.Random, size: int) -> bytearray:
        disk = bytearray(size)
        for _ in range(6):
            self._write(rng, disk)
        return disk

    def _write(self, rng: random.Random, disk: bytearray) -> None:
        kind = rng.random()
        if kind < 0.65:
            run = rng.choice(self._pool)
        elif kind < 0.88:
            run = rng.randbytes(_BLOCK * rng.randint(*_RUN_BLOCKS))
        else:
            run = bytes(_BLOCK * rng.randint(*_RUN_BLOCKS))
        at = _BLOCK * rng.randrange(-(-len(disk) // _BLOCK))
        run = run[: len(disk) - at]
        disk[at : at + len(run)] = run


def _write_changes(state: State, others: list[State]) -> list[Path]:
    lists = []
    for disk in state.disks:
        ranges = _differences(disk, [other.folder / disk.name for other in others])
        lists.append(disk.with_suffix(".changed"))
        lines = [f"{json.dumps({'offset': at, 'length': size})}\n" for at, size in ranges]
        lists[-1].write_text("".join(lines))
    return lists


def _differences(disk: Path, others: list[Path]) -> list[tuple[int, int]]:
    """(offset, length) of blocks that are not the same in all of them."""
    content = np.fromfile(disk, np.uint8)
    blocks = -(-len(content) // _BLOCK)
    differs = np.zeros(blocks, bool)
    for other in others:
        unlike = np.zeros(blocks * _BLOCK, bool)
        unlike[: len(content)] = content != np.fromfile(other, np.uint8)
        differs |= unlike.reshape(blocks, _BLOCK).any(axis=1)
    return [
        (number * _BLOCK, min(_BLOCK, len(content) - number * _BLOCK))
        for number in np.flatnonzero(differs).tolist()
    ]
