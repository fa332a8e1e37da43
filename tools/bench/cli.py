"""Command line of the benchmarks: what to run, on how much data, and where results go.

Decides sizes and exit codes: 0 when everything asked for was measured, 1 when something failed or
a tool is missing, 2 for a wrong command line or too few rights. Missed aims are results, not
failures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from tools.bench import (
    guest_trees,
    ingest,
    lifecycle,
    live,
    mounting,
    object_store,
    peers,
    storing,
)
from tools.bench.aims import verdicts
from tools.bench.archivers import archivers
from tools.bench.content import MIB
from tools.bench.disks import DiskMaker
from tools.bench.process import Runner
from tools.bench.report import RATIO_NOTE, as_json, machine_facts, markdown, print_table
from tools.bench.session import Session, Sizes

CACHE = Path("~/.cache/backpoint-bench").expanduser()
BENCHMARKS = {
    ingest.NAME: ingest.run,
    mounting.NAME: mounting.run,
    storing.NAME: storing.run,
    guest_trees.NAME: guest_trees.run,
    live.NAME: live.run,
    lifecycle.NAME: lifecycle.run,
    object_store.NAME: object_store.run,
}
WITHOUT_PEERS = {guest_trees.NAME, live.NAME}
"""No other backup tool shows a guest's files, or has sessions on a mount."""
FULL = Sizes(data=1900 * MIB, similar=300 * MIB, changed=1024 * MIB)
QUICK = Sizes(data=150 * MIB, similar=60 * MIB, changed=256 * MIB)
FILE_WIDTH = 150
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(words: str) -> int:
    """Bytes from `150M` or `2G`. Raises ArgumentTypeError for anything else."""
    number, unit = words[:-1], words[-1:].upper()
    if unit not in UNITS or not number.isdigit() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"{words!r} is not a size such as 150M or 2G")
    return int(number) * UNITS[unit]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    made.add_argument("benchmark", choices=[*BENCHMARKS, "all"])
    made.add_argument("--quick", action="store_true", help="small data, one run")
    made.add_argument("--data-size", type=size, help="data in the big disk, such as 1900M")
    made.add_argument("--runs", type=int, help="the best of so many counts (default 3)")
    made.add_argument("--only", action="append", metavar="TOOL", help="these tools only")
    made.add_argument("--json", type=Path, metavar="FILE")
    made.add_argument("--markdown", type=Path, metavar="FILE")
    made.add_argument("--workdir", type=Path, default=CACHE, help="tools, disks, repositories")
    made.add_argument("-v", "--verbose", action="store_true", help="print every command")
    return made


def main(argv: list[str] | None = None) -> int:
    asked = parser().parse_args(argv)
    # Redirected output is for a file, where 80 columns would fold every cell.
    console = Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)
    if os.geteuid() != 0:
        print("tools/bench needs root: loop mounts, dropped caches, packages", file=sys.stderr)
        return 2
    # A run that is told to stop must still unmount what it has mounted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = Runner(asked.verbose)
    session = _session(asked, runner, console)
    names = list(BENCHMARKS) if asked.benchmark == "all" else [asked.benchmark]
    facts = machine_facts(asked.workdir) | {
        "data": f"{session.sizes.data / 1e6:.0f} MB, best of {session.runs}",
        "command": " ".join(["tools/bench/run", *(sys.argv[1:] if argv is None else argv)]),
    }
    installed = peers.Installed(session.executables, {})
    facts |= peers.versions(runner, installed)
    facts |= {f"{tool.name} options": tool.settings for tool in session.archivers}
    for name in names:
        session.attempt(name, "all", "harness", partial(BENCHMARKS[name], session))
        rows = [row for row in session.rows if row.benchmark == name]
        print_table(console, name, rows)
    judged = verdicts(session.rows, set(names))
    console.print(RATIO_NOTE, style="dim")
    for verdict in judged:
        console.print(f"aim: {verdict}", markup=False)
    if asked.json:
        asked.json.write_text(as_json(facts, session.rows, judged))
    if asked.markdown:
        asked.markdown.write_text(markdown(facts, session.rows, judged))
    for failure in session.failures:
        console.print(f"NOT MEASURED {failure}", style="bold red", markup=False)
    return 1 if session.failures else 0


def _session(asked: argparse.Namespace, runner: Runner, console: Console) -> Session:
    """Install what is needed and say loudly what could not be."""
    sizes = QUICK if asked.quick else FULL
    if asked.data_size:
        sizes = Sizes(asked.data_size, sizes.similar, sizes.changed)
    asked.workdir.mkdir(parents=True, exist_ok=True)
    installed = _installed(asked, runner)
    wanted = [
        tool
        for tool in archivers(installed.executables)
        if not asked.only or tool.name in asked.only
    ]
    session = Session(
        runner=runner,
        console=console,
        archivers=wanted,
        executables=installed.executables,
        disks=DiskMaker(runner, asked.workdir / "disks"),
        work=asked.workdir / "work",
        sizes=sizes,
        runs=asked.runs or (1 if asked.quick else 3),
    )
    session.work.mkdir(exist_ok=True)
    for name, why in installed.missing.items():
        if not asked.only or name in asked.only:
            session.failures.append(f"{name} is missing: {why}")
            console.print(f"MISSING {session.failures[-1]}", style="bold red", markup=False)
    return session


def _installed(asked: argparse.Namespace, runner: Runner) -> peers.Installed:
    backpoint = shutil.which("backpoint")
    if asked.benchmark in WITHOUT_PEERS and backpoint is not None:
        return peers.Installed({"backpoint": Path(backpoint)}, {})
    return peers.install(runner, asked.workdir)
