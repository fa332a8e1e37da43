"""Guest files in a mount: the first byte of one in a million, a large folder, large files.

Decides what is cold (kernel caches dropped, a new daemon, so that no parser process runs either)
and what counts: a first byte and a listing from the moment `guest/` is first named, parsers'
start included; reading of large files from their opening on. The peer is the kernel's driver on a
loop device over our flat file, mounted anew. CPU is that of the daemon and of its parsers.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.bench.archivers import PASSPHRASE, Backpoint
from tools.bench.guest_files import (
    CONTENT,
    FOLDER,
    KINDS,
    LARGE,
    MANY,
    PLACE,
    READERS,
    Counts,
    disk_of,
    large_file,
    readers_file,
    small_content,
)
from tools.bench.mounts import LOOP, MountedGuests
from tools.bench.process import BenchFailure, Command, Daemon
from tools.bench.reads import (
    BLOCK,
    compare,
    drop_caches,
    first_byte,
    read_range,
    read_through,
    read_together,
)
from tools.bench.report import OURS, Row
from tools.bench.session import Session, best_of

NAME = "guest"
FLAT = "flat file"
ROOT = "root"
SEQUENTIAL = "large file, dd"
ALONE, TOGETHER = f"{READERS} files one by one", f"{READERS} files at once"
FIRST_DONE = f"{TOGETHER}, the first is done"
NAMES, STATS, LONG = "ls -U", "scandir and stat", "ls -l"
# The data of a full run is what the aims are for; a quick one has as small a share of everything.
FULL_DATA = 1900 << 20
_COMPARED = 512


def first_byte_work(place: str) -> str:
    return f"first byte, guest/{place}"


def listing_work(how: str, kind: str) -> str:
    return f"{how}, {kind}"


def run(session: Session) -> None:
    """Append the rows of this benchmark to the session."""
    counts = Counts.of(session.sizes.data / FULL_DATA)
    disks = session.disks.guests(counts)
    for archiver in session.archivers:
        if isinstance(archiver, Backpoint):
            guests = MountedGuests(session.runner, archiver, session.work / "guest")
            session.attempt(NAME, "backup", OURS, partial(_back_up, session, guests, disks))
            samples: list[Row] = []
            for work, rows in _parts(session, guests, counts, disks).items():
                session.say(f"guest: {work}")
                session.collect(NAME, work, OURS, samples, rows)
            session.rows += best_of(samples)
            shutil.rmtree(guests.folder, ignore_errors=True)


def _back_up(session: Session, guests: MountedGuests, disks: Path) -> None:
    shutil.rmtree(guests.folder, ignore_errors=True)
    guests.folder.mkdir(parents=True)
    session.runner.run(guests.archiver.create(guests.repo))
    for vm in (MANY, *KINDS, CONTENT):
        session.say(f"guest: backing up {vm}")
        session.runner.run(guests.archiver.backup(guests.repo, vm, disk_of(disks, vm)))


def _parts(
    session: Session, guests: MountedGuests, counts: Counts, disks: Path
) -> dict[str, Iterator[Row]]:
    """What is measured; one that fails leaves the others."""
    entries = f"a folder of {counts.entries:,} entries"
    return {
        f"first byte of one in {counts.files:,} files": _first_bytes(session, guests, counts),
        **{f"{entries} on {kind}": _listings(session, guests, counts, kind) for kind in KINDS},
        "one large file": _sequential(session, guests, disks, counts),
        f"{READERS} files": _readers(guests, counts),
        "commands": _commands(session, guests, counts),
    }


def _first_bytes(session: Session, guests: MountedGuests, counts: Counts) -> Iterator[Row]:
    path = counts.one_of_many
    for _ in range(session.runs):
        for place in (ROOT, PLACE):
            with guests.mounted() as daemon:
                file = guests.guest(MANY, place) / path
                yield _timed(first_byte_work(place), OURS, daemon, partial(first_byte, file))
                if not file.read_bytes().startswith(small_content(path)):
                    raise BenchFailure(f"{file} has other bytes than it was given")
    with guests.mounted() as daemon:
        cpu_before, started = daemon.cpu_s(), time.monotonic()
        with guests.loop_mounted(MANY, "ext4") as root:
            first_byte(root / path)
            seconds = time.monotonic() - started
            for place in (ROOT, PLACE):
                yield _row(first_byte_work(place), LOOP, daemon, cpu_before, seconds)


def _listings(session: Session, guests: MountedGuests, counts: Counts, kind: str) -> Iterator[Row]:
    for how, do in _LISTERS.items():
        # Only names on ext4 have an aim; `ls -l` is much the same everywhere.
        if (how, kind) in ((LONG, "xfs"), (LONG, "btrfs")):
            continue
        work = listing_work(how, kind)
        for _ in range(session.runs if (how, kind) == (NAMES, "ext4") else 1):
            with guests.mounted() as daemon:
                folder = guests.guest(kind, PLACE) / FOLDER
                if how != NAMES:
                    # A path through `latest` costs a request of its own, and here are very many.
                    folder = guests.by_time(folder)
                yield _timed(work, OURS, daemon, partial(do, session, folder, counts.entries))
        with guests.mounted() as daemon:
            cpu_before, started = daemon.cpu_s(), time.monotonic()
            with guests.loop_mounted(kind, kind) as root:
                do(session, root / FOLDER, counts.entries)
                seconds = time.monotonic() - started
                yield _row(work, LOOP, daemon, cpu_before, seconds)


def _list_names(session: Session, folder: Path, entries: int) -> None:
    printed, _ = session.runner.output(Command(("ls", "-U", str(folder))))
    _check_count(folder, len(printed.splitlines()), entries)


def _list_stats(session: Session, folder: Path, entries: int) -> None:
    with os.scandir(folder) as found:
        _check_count(folder, sum(one.stat().st_size > 0 for one in found), entries)


def _list_long(session: Session, folder: Path, entries: int) -> None:
    printed, _ = session.runner.output(Command(("ls", "-l", str(folder))))
    _check_count(folder, len(printed.splitlines()) - len(("total",)), entries)


_LISTERS: dict[str, Callable[[Session, Path, int], None]] = {
    NAMES: _list_names,
    STATS: _list_stats,
    LONG: _list_long,
}


def _check_count(folder: Path, found: int, entries: int) -> None:
    if found != entries:
        raise BenchFailure(f"{folder} lists {found} entries, not {entries}")


def _sequential(
    session: Session, guests: MountedGuests, disks: Path, counts: Counts
) -> Iterator[Row]:
    laid = large_file(disks)
    note = f"{laid.extents} extents"
    for _ in range(session.runs):
        with guests.mounted() as daemon:
            file = guests.guest(CONTENT, PLACE) / LARGE
            file.stat()
            cpu_before = daemon.cpu_s()
            seconds = read_through(session.runner, file).seconds
            yield _row(SEQUENTIAL, OURS, daemon, cpu_before, seconds, counts.large, note)
        with guests.mounted() as daemon:
            flat = guests.flat(CONTENT)
            flat.stat()
            cpu_before = daemon.cpu_s()
            # Two files lie there by turns, so it is as much data.
            seconds = read_range(session.runner, flat, laid.disk_offset, counts.large).seconds
            yield _row(SEQUENTIAL, FLAT, daemon, cpu_before, seconds, counts.large)
    with guests.mounted() as daemon, guests.loop_mounted(CONTENT, "ext4") as root:
        cpu_before = daemon.cpu_s()
        seconds = read_through(session.runner, root / LARGE).seconds
        yield _row(SEQUENTIAL, LOOP, daemon, cpu_before, seconds, counts.large)
        step = counts.large // _COMPARED // BLOCK * BLOCK
        file = guests.guest(CONTENT, PLACE) / LARGE
        compare(file, root / LARGE, list(range(0, counts.large, step)))


def _readers(guests: MountedGuests, counts: Counts) -> Iterator[Row]:
    with guests.mounted() as daemon:
        root = guests.guest(CONTENT, PLACE)
        yield from _alone(root, OURS, daemon, counts)
    with guests.mounted() as daemon:
        yield from _together(root, OURS, daemon, counts)
    with guests.mounted() as daemon, guests.loop_mounted(CONTENT, "ext4") as root:
        yield from _alone(root, LOOP, daemon, counts)
    with guests.mounted() as daemon, guests.loop_mounted(CONTENT, "ext4") as root:
        yield from _together(root, LOOP, daemon, counts)


def _alone(root: Path, tool: str, daemon: Daemon, counts: Counts) -> Iterator[Row]:
    root.stat()
    cpu_before = daemon.cpu_s()
    took = [read_together([root / readers_file(one)]).seconds[0] for one in range(READERS)]
    yield _row(ALONE, tool, daemon, cpu_before, sum(took), READERS * counts.read)


def _together(root: Path, tool: str, daemon: Daemon, counts: Counts) -> Iterator[Row]:
    root.stat()
    cpu_before = daemon.cpu_s()
    read = read_together([root / readers_file(one) for one in range(READERS)])
    note = "done in s: " + " ".join(f"{seconds:.1f}" for seconds in sorted(read.seconds))
    slowest, size = max(read.seconds), READERS * counts.read
    yield _row(TOGETHER, tool, daemon, cpu_before, slowest, size, note)
    note = "each had %: " + " ".join(f"{share:.0%}"[:-1] for share in sorted(read.shares))
    yield _row(FIRST_DONE, tool, daemon, cpu_before, min(read.seconds), note=note)


def _commands(session: Session, guests: MountedGuests, counts: Counts) -> Iterator[Row]:
    """Without a mount: whole commands, from the start of Python on."""
    asked: dict[str, tuple[tuple[str, ...], int | None]] = {
        "command ls, ext4": (("ls", f"ext4@latest:{PLACE}/{FOLDER}"), None),
        "command cp, one of many": (("cp", f"{MANY}@latest:/{counts.one_of_many}", "-"), None),
        "command cp, large file": (("cp", f"{CONTENT}@latest:{PLACE}/{LARGE}", "-"), counts.large),
    }
    for work, (words, size) in asked.items():
        drop_caches()
        backpoint = (str(session.executables["backpoint"]), "-r", str(guests.repo), *words)
        # Bytes of a file are nothing to keep as a command's words.
        argv = ("sh", "-c", 'exec "$@" > /dev/null', "sh", *backpoint)
        usage = session.runner.run(Command(argv, env={"BACKPOINT_PASSPHRASE": PASSPHRASE}))
        yield Row(
            NAME,
            work,
            OURS,
            seconds=usage.seconds,
            bytes=size,
            cpu_s=usage.cpu_s,
            peak_rss=usage.peak_rss,
        )


def _timed(work: str, tool: str, daemon: Daemon, do: Callable[[], None]) -> Row:
    cpu_before, started = daemon.cpu_s(), time.monotonic()
    do()
    return _row(work, tool, daemon, cpu_before, time.monotonic() - started)


def _row(
    work: str,
    tool: str,
    daemon: Daemon,
    cpu_before: float,
    seconds: float,
    size: int | None = None,
    note: str = "",
) -> Row:
    return Row(
        NAME,
        work,
        tool,
        seconds=seconds,
        bytes=size,
        cpu_s=daemon.cpu_s() - cpu_before,
        peak_rss=daemon.peak_rss(),
        note=note,
    )
