"""Rows of figures and how they are shown: a table on the terminal, Markdown, JSON.

Decides what a ratio means. Knows no tool but Backpoint's name, which every ratio is against.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

OURS = "backpoint"
RATIO_NOTE = (
    "ratio: how Backpoint does against the tool in that line; for time and speed, over 1 means"
    " Backpoint is that many times faster; for stored bytes, under 1 means it stores that share."
)


@dataclass(frozen=True)
class Row:
    """One tool at one piece of work; what was not measured is None.

    `bytes` is what `seconds` were spent on and gives MB/s (10^6). `per_second` is random reads.
    `cpu_s` and `peak_rss` are the tool's own, not those of a reader of its mount.
    """

    benchmark: str
    work: str
    tool: str
    seconds: float | None = None
    bytes: int | None = None
    per_second: float | None = None
    cpu_s: float | None = None
    peak_rss: int | None = None
    stored: int | None = None
    note: str = ""

    def mb_per_s(self) -> float | None:
        if self.seconds is None or self.bytes is None:
            return None
        return self.bytes / self.seconds / 1e6


def ratio(ours: Row, theirs: Row) -> float | None:
    """Speed for timed work and random reads, else share of stored bytes."""
    if ours.per_second and theirs.per_second:
        return ours.per_second / theirs.per_second
    if ours.seconds and theirs.seconds:
        return theirs.seconds / ours.seconds
    if ours.stored and theirs.stored:
        return ours.stored / theirs.stored
    return None


def ratios(rows: list[Row]) -> list[float | None]:
    """For each row the ratio against Backpoint's row of the same work."""
    ours = {(row.benchmark, row.work): row for row in rows if row.tool == OURS}
    found: list[float | None] = []
    for row in rows:
        own = ours.get((row.benchmark, row.work))
        found.append(None if own is None or row.tool == OURS else ratio(own, row))
    return found


def by_work(rows: list[Row]) -> list[Row]:
    """The same rows, all tools at one piece of work together, in order of first appearance."""
    order = list(dict.fromkeys((row.benchmark, row.work) for row in rows))
    return sorted(rows, key=lambda row: order.index((row.benchmark, row.work)))


def _figure(value: float | None, shape: str = "{:.2f}", divisor: float = 1) -> str:
    return "" if value is None else shape.format(value / divisor)


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("work", lambda row: row.work),
    ("tool", lambda row: row.tool),
    ("s", lambda row: _figure(row.seconds)),
    ("MB/s", lambda row: _figure(row.mb_per_s(), "{:.0f}")),
    ("reads/s", lambda row: _figure(row.per_second, "{:.0f}")),
    ("CPU s", lambda row: _figure(row.cpu_s)),
    ("peak RSS MB", lambda row: _figure(row.peak_rss, "{:.0f}", 1e6)),
    ("stored MB", lambda row: _figure(row.stored, "{:.1f}", 1e6)),
)


def cells(rows: list[Row]) -> list[list[str]]:
    """Header and one line of text a row, the ratio and the note last."""
    lines = [[name for name, _ in COLUMNS] + ["ratio", "note"]]
    for row, against in zip(rows, ratios(rows), strict=True):
        lines.append([show(row) for _, show in COLUMNS] + [_figure(against), row.note])
    return lines


def print_table(console: Console, benchmark: str, rows: list[Row]) -> None:
    header, *lines = cells(by_work(rows))
    table = Table(title=benchmark, title_justify="left")
    for number, name in enumerate(header):
        left = number < 2 or name == "note"
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    previous = ""
    for line in lines:
        if previous and line[0] != previous:
            table.add_section()
        table.add_row(*line)
        previous = line[0]
    console.print(table)


def machine_facts(workdir: Path) -> dict[str, str]:
    """What a reader must know of the machine to compare figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{os.cpu_count()} x {model}",
        "memory": f"{memory / 1e9:.1f} GB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "work folder on": _filesystem_of(workdir),
    }


def _filesystem_of(folder: Path) -> str:
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, f"{kind} ({device})")
    return best[1]


def markdown(facts: dict[str, str], rows: list[Row], verdicts: list[str]) -> str:
    """Facts as a list, then one table a benchmark, then the aims."""
    parts = [f"- {name}: {value}" for name, value in facts.items()]
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        header, *lines = cells(by_work([row for row in rows if row.benchmark == benchmark]))
        parts += ["", f"## {benchmark}", "", _pipes(header), _pipes(["---"] * len(header))]
        parts += [_pipes(line) for line in lines]
    parts += ["", RATIO_NOTE]
    if verdicts:
        parts += ["", "## aims", "", *(f"- {verdict}" for verdict in verdicts)]
    return "\n".join(parts) + "\n"


def _pipes(line: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"


def as_json(facts: dict[str, str], rows: list[Row], verdicts: list[str]) -> str:
    """Everything that was measured, one object."""
    found = zip(rows, ratios(rows), strict=True)
    records = [{**asdict(row), "mb_per_s": row.mb_per_s(), "ratio": by} for row, by in found]
    return json.dumps({"facts": facts, "rows": records, "aims": verdicts}, indent=1) + "\n"
