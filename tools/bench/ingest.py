"""Backing up: the first full, a full scan with nothing changed, the next day, a
second VM with the same files, a changed list.

Decides the order of the work and what is warm. The page cache holds the disk before each timed
command, the repository is new for each full backup, and MB/s counts the bytes of data in the
disk, not its holes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.bench.archivers import Archiver, Backpoint, stored_bytes
from tools.bench.content import MIB
from tools.bench.disks import DISK, Fleet, scattered, write_extents
from tools.bench.process import Command
from tools.bench.reads import data_size, warm
from tools.bench.report import Row
from tools.bench.session import Session, best_of

NAME = "ingest"
FULL, UNCHANGED, NEXT_DAY = "full backup", "unchanged, full scan", "next day, full scan"
OTHER = "other VM, same files"
SPARSE_DISKS = (("10 GiB", 10 << 30), ("1 TiB", 1 << 40))


def incremental_work(label: str) -> str:
    return f"changed list, {label} disk"


def run(session: Session) -> None:
    """Append the rows of this benchmark to the session."""
    fleet = session.disks.fleet(session.sizes.data)
    samples: list[Row] = []
    able = list(session.archivers)
    # Tools take turns within a run, so that a slow minute of the machine hits all of them.
    for number in range(session.runs):
        for archiver in list(able):
            session.say(f"ingest: run {number + 1} of {session.runs}, {archiver.name}")
            rows = _scans(session, archiver, fleet)
            if not session.collect(NAME, "scans", archiver.name, samples, rows):
                able.remove(archiver)
    for archiver in able:
        if isinstance(archiver, Backpoint):
            for label, size in SPARSE_DISKS:
                work = incremental_work(label)
                session.say(f"ingest: {work}")
                rows = _incremental(session, archiver, work, size)
                session.collect(NAME, work, archiver.name, samples, rows)
    session.rows += best_of(samples)


def _scans(session: Session, archiver: Archiver, fleet: Fleet) -> Iterator[Row]:
    repo = session.work / "ingest-repo"
    archiver.forget(repo)
    session.runner.run(archiver.create(repo))
    steps = (
        (FULL, "web01", fleet.day1),
        (UNCHANGED, "web01", fleet.day1),
        (NEXT_DAY, "web01", fleet.day2),
        (OTHER, "web02", fleet.other),
    )
    for work, vm, disk in steps:
        # A running VM's disk has a new time every night; no tool may trust the old one.
        os.utime(disk)
        yield _timed(session, archiver, repo, work, archiver.backup(repo, vm, disk), disk)
    archiver.forget(repo)


def _timed(
    session: Session, archiver: Archiver, repo: Path, work: str, command: Command, disk: Path
) -> Row:
    before = stored_bytes(repo)
    warm(disk)
    # Earlier writes must not be flushed on this command's time.
    os.sync()
    usage = session.runner.run(command)
    return Row(
        NAME,
        work,
        archiver.name,
        seconds=usage.seconds,
        bytes=data_size(disk),
        cpu_s=usage.cpu_s,
        peak_rss=usage.peak_rss,
        stored=stored_bytes(repo) - before,
    )


def _incremental(session: Session, archiver: Backpoint, work: str, size: int) -> Iterator[Row]:
    """Twice the changed bytes are in the disk; one extent in two changes for each run."""
    folder = session.work / "incremental"
    shutil.rmtree(folder, ignore_errors=True)
    repo, disk, listed = folder / "repo", folder / DISK, folder / "changed.jsonl"
    extents = scattered(size, 2 * session.sizes.changed)
    changed = extents[::2]
    write_extents(disk, size, extents, 0)
    with listed.open("w") as file:
        for offset, length in changed:
            file.write(json.dumps({"offset": offset, "length": length}) + "\n")
    session.runner.run(archiver.create(repo))
    session.runner.run(archiver.backup(repo, "big", disk))
    command = archiver.backup_changed(repo, "big", disk, listed)
    for number in range(session.runs):
        write_extents(disk, size, changed, number + 1)
        before = stored_bytes(repo)
        os.sync()
        usage = session.runner.run(command)
        yield Row(
            NAME,
            work,
            archiver.name,
            seconds=usage.seconds,
            bytes=len(changed) * MIB,
            cpu_s=usage.cpu_s,
            peak_rss=usage.peak_rss,
            stored=stored_bytes(repo) - before,
        )
    shutil.rmtree(folder)
