"""How far the runs of VMs are, on stderr: bars on a terminal, lines elsewhere, JSON for scripts.

Decides what is shown; called from the threads of the VMs, whose runs must not fail because nobody
looks any more. Knows no outcomes: those are the summary's.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from backpoint_agent.running.parts import Watcher
from backpoint_repo.sizes import format_size
from backpoint_repo.terminal import printable, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_RECORD_EVERY_S: Final = 1.0


@contextmanager
def live_watcher(*, as_json: bool) -> Iterator[Watcher]:
    """The watcher that suits stderr."""
    if as_json:
        yield _Records()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _progress() as shown:
            yield _Bars(shown)
    else:
        yield _Lines()


class _Lines:
    """One line for each phase."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def phase(self, vm: str, text: str) -> None:
        with self._lock, _unheard():
            say(f"{vm}: {text}")

    def reading(self, vm: str, size: int) -> None:
        self.phase(vm, f"disks of {format_size(size)}")

    def advance(self, vm: str, size: int) -> None:
        pass


class _Records:
    """One record for each phase, and one a second for each VM's bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._printing = threading.Lock()
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._told: dict[str, float] = {}

    def phase(self, vm: str, text: str) -> None:
        self._print({"type": "phase", "vm": vm, "phase": text})

    def reading(self, vm: str, size: int) -> None:
        with self._lock:
            self._total[vm], self._done[vm] = size, 0

    def advance(self, vm: str, size: int) -> None:
        with self._lock:
            self._done[vm] = done = self._done.get(vm, 0) + size
            total, now = self._total.get(vm, 0), time.monotonic()
            if done < total and now < self._told.get(vm, 0.0) + _RECORD_EVERY_S:
                return
            self._told[vm] = now
        self._print({"type": "progress", "vm": vm, "done_bytes": done, "total_bytes": total})

    def _print(self, record: dict[str, object]) -> None:
        # In one piece, or lines of two threads get mixed.
        with self._printing, _unheard():
            print(json.dumps(record) + "\n", end="", file=sys.stderr, flush=True)


class _Bars:
    """A bar for each VM that runs."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}

    def phase(self, vm: str, text: str) -> None:
        self._shown.update(self._task(vm), phase=printable(text))

    def reading(self, vm: str, size: int) -> None:
        self._shown.update(self._task(vm), total=max(1, size), completed=0)

    def advance(self, vm: str, size: int) -> None:
        self._shown.advance(self._task(vm), size)

    def _task(self, vm: str) -> TaskID:
        with self._lock:
            if vm not in self._tasks:
                self._tasks[vm] = self._shown.add_task(printable(vm), total=None, phase="")
            return self._tasks[vm]


@contextmanager
def _unheard() -> Iterator[None]:
    """Whoever read stderr may be gone: a closed pipe, a full disk."""
    with contextlib.suppress(OSError, ValueError):
        yield


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TextColumn("{task.fields[phase]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
