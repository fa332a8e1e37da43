"""How far long work has come: a bar on a terminal, a line now and then elsewhere, JSON for scripts.

All of it goes to stderr, so that stdout holds the result alone. Decides what is shown and when;
knows nothing of the work but its bytes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, ParamSpec

from backpoint_repo.sizes import format_duration, format_rate, format_size
from backpoint_repo.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress

P = ParamSpec("P")
Advance = Callable[[int], None]
"""Called with the bytes dealt with since the last call; a correction may be negative."""

_LINE_EVERY_S: Final = 5.0
_RECORD_EVERY_S: Final = 1.0
_RATE_OVER_S: Final = 10.0


@dataclass(frozen=True)
class Figures:
    """One moment of the work. rate: bytes a second lately; eta_s: None while nobody can tell."""

    done_bytes: int
    total_bytes: int
    rate: float
    eta_s: float | None

    def text(self) -> str:
        """As a person reads it."""
        share = 100 * self.done_bytes // self.total_bytes if self.total_bytes else 100
        done = f"{share}% {format_size(self.done_bytes)} of {format_size(self.total_bytes)}"
        left = "" if self.eta_s is None else f", {format_duration(self.eta_s)} left"
        return f"{done}, {format_rate(self.rate)}{left}"


class Meter:
    """Counts bytes and knows their rate over the last seconds. clock: seconds, monotonic."""

    def __init__(self, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total_bytes
        self._clock = clock
        self._done = 0
        self._seen = deque([(clock(), 0)])

    def advance(self, size: int) -> Figures:
        """Count; what stands now. Never more than the total, so that no bar runs over."""
        self._done += size
        now = self._clock()
        self._seen.append((now, self._done))
        while len(self._seen) > 2 and self._seen[1][0] < now - _RATE_OVER_S:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = max(0.0, (self._done - before) / (now - since)) if now > since else 0.0
        done = min(self._done, self._total)
        eta_s = (self._total - done) / rate if rate > 0 else None
        return Figures(done, self._total, rate, eta_s)


@contextmanager
def progress(label: str, total_bytes: int, *, as_json: bool) -> Iterator[Advance]:
    """Show progress while the block runs, in the way that suits stderr."""
    meter = Meter(total_bytes)
    if as_json:
        _print_record(meter.advance(0))
        show = _every(_RECORD_EVERY_S, _print_record)
        yield lambda size: show(meter.advance(size))
        _print_record(meter.advance(0))
    elif _on_terminal():
        with _bar(printable(label), total_bytes) as shown:

            def draw(now: Figures) -> None:
                shown.update(shown.task_ids[0], completed=now.done_bytes, figures=now.text())

            yield lambda size: draw(meter.advance(size))
    else:
        line = _every(_LINE_EVERY_S, lambda now: _print_line(label, now), at_once=False)
        yield lambda size: line(meter.advance(size))


class Steps:
    """Progress of work that has phases and counts steps, not bytes; fits `PhaseProgress`."""

    def __init__(self, show: Callable[[str, int, int], None]) -> None:
        """show: called with the phase, steps done and steps in all."""
        self._show = show
        self._phase, self._done, self._total = "", 0, 0

    def phase(self, name: str, total: int) -> None:
        """A new phase with `total` steps begins."""
        self._phase, self._done, self._total = name, 0, total
        self._show(name, 0, total)

    def advance(self, steps: int) -> None:
        """So many steps are done."""
        self._done += steps
        self._show(self._phase, self._done, self._total)


@contextmanager
def steps(label: str, *, as_json: bool) -> Iterator[Steps]:
    """As `progress`, for work in phases."""
    label = printable(label)
    if as_json:
        yield Steps(_every(_RECORD_EVERY_S, _print_step_record))
    elif _on_terminal():
        with _bar(label, 1) as shown:
            yield Steps(
                lambda phase, done, total: shown.update(
                    shown.task_ids[0],
                    description=f"{label} {phase}",
                    completed=done,
                    total=max(1, total),
                    figures=f"{done} of {total}",
                )
            )
    else:

        def print_line(phase: str, done: int, total: int) -> None:
            print(f"{label} {phase}: {done} of {total}", file=sys.stderr, flush=True)

        yield Steps(_every(_LINE_EVERY_S, print_line, at_once=False))


def _on_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _every(period_s: float, show: Callable[P, None], *, at_once: bool = True) -> Callable[P, None]:
    """`show`, but not more often than this."""
    due = time.monotonic() + (0 if at_once else period_s)

    def shown_rarely(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + period_s
            show(*args, **kwargs)

    return shown_rarely


@contextmanager
def _bar(label: str, total: int) -> Iterator[Progress]:
    """A bar with one task, which has a text field `figures`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        shown.add_task(label, total=max(1, total), figures="")
        yield shown


def _print_line(label: str, now: Figures) -> None:
    print(f"{printable(label)}: {now.text()}", file=sys.stderr, flush=True)


def _print_record(now: Figures) -> None:
    record = {
        "type": "progress",
        "done_bytes": now.done_bytes,
        "total_bytes": now.total_bytes,
        "rate": round(now.rate),
        "eta_s": None if now.eta_s is None else round(now.eta_s, 1),
    }
    print(json.dumps(record), file=sys.stderr, flush=True)


def _print_step_record(phase: str, done: int, total: int) -> None:
    record = {"type": "progress", "phase": phase, "done": done, "total": total}
    print(json.dumps(record), file=sys.stderr, flush=True)
