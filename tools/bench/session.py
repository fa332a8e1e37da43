"""One run of the benchmarks: what it was asked for, and the rows it has collected.

Decides which of several runs counts and what happens when a tool fails in the middle. Knows no
particular benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from tools.bench.archivers import Archiver
from tools.bench.disks import DiskMaker
from tools.bench.process import BenchFailure, Runner
from tools.bench.report import Row

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """Bytes of data: in the big disk, in each of the similar ones, changed for an incremental."""

    data: int
    similar: int
    changed: int


@dataclass
class Session:
    """What every benchmark gets; `rows` and `failures` grow while it runs."""

    runner: Runner
    console: Console
    archivers: list[Archiver]
    executables: dict[str, Path]
    disks: DiskMaker
    work: Path
    sizes: Sizes
    runs: int
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def attempt(self, benchmark: str, work: str, tool: str, do: Callable[[], T]) -> T | None:
        """What `do` returns; None if the tool failed, which is told now and again at the end."""
        try:
            return do()
        except (BenchFailure, NotImplementedError) as failure:
            # No shared words for `work`: a tool that fails in one step has no figures after it.
            self.failures.append(f"{benchmark}, {work}, {tool}: {failure}")
            self.console.print(f"FAILED {self.failures[-1]}", style="bold red", markup=False)
            reason = str(failure).splitlines()[0]
            self.rows.append(Row(benchmark, work, tool, note=f"FAILED: {reason[:80]}"))
            return None

    def collect(
        self, benchmark: str, work: str, tool: str, samples: list[Row], rows: Iterable[Row]
    ) -> bool:
        """Append to `samples` what `rows` yields until it ends or the tool fails; False if so."""

        def drain() -> bool:
            for row in rows:
                samples.append(row)
            return True

        return self.attempt(benchmark, work, tool, drain) is not None

    def say(self, text: str) -> None:
        """Progress: which tool is at which work."""
        self.console.print(text, style="dim", markup=False, highlight=False)


def best_of(samples: list[Row]) -> list[Row]:
    """For each work and tool the fastest sample, with the highest memory that any run took."""
    grouped: dict[tuple[str, str, str], list[Row]] = {}
    for row in samples:
        grouped.setdefault((row.benchmark, row.work, row.tool), []).append(row)
    return [_best(rows) for rows in grouped.values()]


def _best(rows: list[Row]) -> Row:
    if all(row.per_second is not None for row in rows):
        best = max(rows, key=lambda row: row.per_second or 0)
    else:
        best = min(rows, key=lambda row: row.seconds or float("inf"))
    return replace(best, peak_rss=max((row.peak_rss or 0 for row in rows), default=0) or None)
