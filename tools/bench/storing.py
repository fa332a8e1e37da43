"""Stored bytes: similar VMs, backed up every night of a week.

Decides the week: every night all VMs in turn, each changed a little since the night before. Next
to the tools, the same disks are counted as fixed 4 MiB chunks with zstd -1, which is how Proxmox
Backup Server stores a disk; that line is arithmetic, not a run of it.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

import zstandard
from tools.bench.archivers import Archiver, stored_bytes
from tools.bench.content import MIB
from tools.bench.disks import DISK, SEED
from tools.bench.reads import data_size
from tools.bench.report import Row
from tools.bench.session import Session

NAME = "store"
VMS, DAYS = 3, 7
WORK = f"{VMS} similar VMs, {DAYS} days"
FIRST = f"{VMS} similar VMs, first day"
REFERENCE = "fixed 4 MiB, zstd -1"
CHUNK = 4 * MIB


class FixedChunks:
    """Deduplicating count of what fixed chunks would store; a zero chunk costs nothing."""

    def __init__(self) -> None:
        self.stored = 0
        self._seen: set[bytes] = set()
        self._compressor = zstandard.ZstdCompressor(level=1)

    def add(self, disk: Path) -> None:
        with disk.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest = hashlib.sha256(chunk).digest()
                if digest not in self._seen and chunk.count(0) != len(chunk):
                    self._seen.add(digest)
                    self.stored += min(len(chunk), len(self._compressor.compress(chunk)))


def run(session: Session) -> None:
    """Append the rows of this benchmark to the session."""
    folder = session.work / "store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    originals = session.disks.similar(VMS, session.sizes.similar)
    disks = [folder / f"vm{number}" / DISK for number in range(VMS)]
    for original, disk in zip(originals, disks, strict=True):
        session.disks.copy(original, disk)
    repos = {archiver.name: folder / f"repo{n}" for n, archiver in enumerate(session.archivers)}
    able: list[Archiver] = []
    for archiver in session.archivers:
        create = archiver.create(repos[archiver.name])
        if session.attempt(NAME, WORK, archiver.name, partial(session.runner.run, create)):
            able.append(archiver)
    reference = FixedChunks()
    for day in range(DAYS):
        session.say(f"store: day {day + 1} of {DAYS}")
        for number, disk in enumerate(disks):
            if day > 0:
                session.disks.live_a_day(disk, day, session.sizes.similar, SEED + number)
            reference.add(disk)
            able = [one for one in able if _backed_up(session, one, repos[one.name], disk)]
        if day in (0, DAYS - 1):
            work = FIRST if day == 0 else WORK
            note = f"{sum(map(data_size, disks)) / 1e6:.0f} MB of data in the disks"
            for one in able:
                stored = stored_bytes(repos[one.name])
                session.rows.append(Row(NAME, work, one.name, stored=stored))
            row = Row(NAME, work, REFERENCE, stored=reference.stored, note=note)
            session.rows.append(row)
    shutil.rmtree(folder)


def _backed_up(session: Session, archiver: Archiver, repo: Path, disk: Path) -> bool:
    command = archiver.backup(repo, disk.parent.name, disk)
    done = session.attempt(NAME, WORK, archiver.name, partial(session.runner.run, command))
    return done is not None
