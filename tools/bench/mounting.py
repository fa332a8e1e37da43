"""Reading through mounts: start, cold sequential, cold and warm random 4 KiB.

Decides what is cold (kernel caches dropped, a new daemon) and what is warm (the same offsets read
before through the same daemon, past the kernel's cache). CPU and memory are the daemon's, MB/s
counts the whole disk with its holes, as dd does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.bench.archivers import PASSPHRASE, Archiver, Backpoint
from tools.bench.mounts import Mountable, MountedRaw, MountedRepository
from tools.bench.points import fill_with_points
from tools.bench.process import BenchFailure, Daemon
from tools.bench.reads import (
    WARM_SET,
    can_read_direct,
    compare,
    data_cells,
    data_size,
    deal,
    drop_caches,
    read_random,
    read_through,
    repeated,
)
from tools.bench.report import Row
from tools.bench.session import Session, best_of

NAME = "mount"
MANY = 100_000
START, MANY_POINTS = "start, 1 point", f"start, {MANY:,} points"
SEQUENTIAL = "cold sequential, dd"
JOBS = (1, 16)
# Enough for five seconds at 40,000 reads a second, shared by the jobs.
WARM_READS = 200_000


def random_work(temperature: str, jobs: int) -> str:
    return f"{temperature} random 4 KiB x{jobs}"


def run(session: Session) -> None:
    """Append the rows of this benchmark to the session."""
    disk = session.disks.fleet(session.sizes.data).day1
    # A cached page of a preallocated block counts as data; every tool gets the same cells.
    drop_caches()
    cells = data_cells(disk, seed=1)
    samples: list[Row] = []
    for one in _mountables(session, disk):
        session.say(f"mount: {one.name}")
        session.collect(NAME, "reads", one.name, samples, _measure(session, one, cells))
        shutil.rmtree(one.folder, ignore_errors=True)
    session.rows += best_of(samples)
    for archiver in session.archivers:
        if isinstance(archiver, Backpoint):
            rows = _many(session, archiver)
            session.collect(NAME, MANY_POINTS, archiver.name, session.rows, rows)


def _mountables(session: Session, disk: Path) -> Iterator[Mountable]:
    folder = session.work / "mount"
    for number, archiver in enumerate(session.archivers):
        yield MountedRepository(session.runner, archiver, folder / f"{number}", disk)
    qemu = session.executables.get("qemu-storage-daemon")
    if qemu is not None:
        yield MountedRaw(session.runner, qemu, folder / "raw", disk)


def _measure(session: Session, one: Mountable, cells: list[int]) -> Iterator[Row]:
    one.prepare()
    for _ in range(session.runs):
        with one.mounted() as opened:
            daemon = opened.daemon
            yield _row(START, one, daemon, seconds=daemon.ready_s)
            cpu_before = daemon.cpu_s()
            usage = read_through(session.runner, opened.path)
            size = opened.path.stat().st_size
            if size != one.disk.stat().st_size:
                raise BenchFailure(f"{opened.path} is {size} bytes, not the disk's size")
            dense = f"{data_size(one.disk) / usage.seconds / 1e6:.0f} MB/s of data"
            yield _row(
                SEQUENTIAL, one, daemon, cpu_before, seconds=usage.seconds, size=size, note=dense
            )
        yield from _random_reads(session, one, cells)


def _random_reads(session: Session, one: Mountable, cells: list[int]) -> Iterator[Row]:
    """One mount: half of the cells for each number of jobs cold, then a small set warm."""
    scratch = one.folder / "fio"
    with one.mounted() as opened:
        path, daemon = opened.path, opened.daemon
        for number, jobs in enumerate(JOBS):
            cpu_before = daemon.cpu_s()
            dealt = deal(cells[number :: len(JOBS)], jobs)
            read = read_random(session.runner, path, dealt, False, scratch)
            note = f"p99 {read.p99_us:.0f} us, {read.reads} reads"
            work = random_work("cold", jobs)
            yield _row(work, one, daemon, cpu_before, per_second=read.per_second, note=note)
        # Wrong bytes at any speed are no result.
        compare(path, one.disk, cells[: len(cells) // 16])
        direct = can_read_direct(path)
        way = "O_DIRECT" if direct else "buffered after fadvise DONTNEED"
        warm_set = cells[:WARM_SET]
        read_random(session.runner, path, deal(warm_set, 4), direct, scratch)
        for jobs in JOBS:
            cpu_before = daemon.cpu_s()
            # Without O_DIRECT the kernel would serve every repeat itself: each offset once then.
            dealt = repeated(warm_set, jobs, WARM_READS // jobs) if direct else deal(warm_set, jobs)
            read = read_random(session.runner, path, dealt, direct, scratch)
            note = f"p99 {read.p99_us:.0f} us, {read.reads} reads, {way}"
            work = random_work("warm", jobs)
            yield _row(work, one, daemon, cpu_before, per_second=read.per_second, note=note)


def _row(
    work: str,
    one: Mountable,
    daemon: Daemon,
    cpu_before: float = 0.0,
    *,
    seconds: float | None = None,
    size: int | None = None,
    per_second: float | None = None,
    note: str = "",
) -> Row:
    return Row(
        NAME,
        work,
        one.name,
        seconds=seconds,
        bytes=size,
        per_second=per_second,
        cpu_s=daemon.cpu_s() - cpu_before,
        peak_rss=daemon.peak_rss(),
        note=note,
    )


def _many(session: Session, archiver: Archiver) -> Iterator[Row]:
    """Time until `ls vms` has answered in a repository with MANY points."""
    folder = session.work / "many-points"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    repo, at = folder / "repo", folder / "mnt"
    at.mkdir()
    session.runner.run(archiver.create(repo))
    fill_with_points(repo, PASSPHRASE, MANY)
    drop_caches()
    command, stop = archiver.mount(repo, at), archiver.unmount(at)

    def listed() -> bool:
        vms = at / "vms"
        return vms.is_dir() and any(vms.iterdir())

    with session.runner.daemon(command, listed, stop) as daemon:
        yield Row(
            NAME,
            MANY_POINTS,
            archiver.name,
            seconds=daemon.ready_s,
            cpu_s=daemon.cpu_s(),
            peak_rss=daemon.peak_rss(),
        )
    shutil.rmtree(folder)
