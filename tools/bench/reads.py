"""Reading a mounted disk as a guest or an admin would, and counting what comes back.

Decides which offsets are read, how caches are made cold, and how fio and dd are asked. Knows no
backup tool. Offsets and sizes are bytes.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.bench.process import BenchFailure, Command, Runner, Usage

BLOCK = 4096
# One read in each cell: no cold read finds its chunk already decoded for another.
CELL = 64 * 1024
WARM_SET = 1024
RUNTIME_S = 5


@dataclass(frozen=True)
class RandomReads:
    """Reads per second and the 99th percentile of their latency in microseconds."""

    per_second: float
    reads: int
    p99_us: float


def data_size(disk: Path) -> int:
    """Bytes a sparse file has blocks for."""
    return disk.stat().st_blocks * 512


def data_cells(disk: Path, seed: int) -> list[int]:
    """In random order, the offset of one random 4 KiB block in every 64 KiB cell of data."""
    rng = random.Random(seed)
    found: list[int] = []
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        end = os.fstat(descriptor).st_size
        position = 0
        while position < end:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            for cell in range(-(-start // CELL) * CELL, position - CELL + 1, CELL):
                found.append(cell + rng.randrange(CELL // BLOCK) * BLOCK)
    finally:
        os.close(descriptor)
    if len(found) < 64:
        raise BenchFailure(f"{disk} has too little data for random reads")
    rng.shuffle(found)
    return found


def drop_caches() -> None:
    """Empty the kernel's page, dentry and inode caches; needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def warm(disk: Path) -> None:
    """Bring a disk's data into the page cache by reading it once."""
    buffer = bytearray(1 << 20)
    with disk.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def can_read_direct(path: Path) -> bool:
    """Whether O_DIRECT reads work there, past the kernel's cache to the file system."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, BLOCK) as page:
            return os.preadv(descriptor, [page], 0) == BLOCK
    except OSError:
        return False
    finally:
        os.close(descriptor)


def read_through(runner: Runner, path: Path) -> Usage:
    """Read a whole file in order with dd."""
    return runner.run(Command(("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")))


def read_range(runner: Runner, path: Path, offset: int, length: int) -> Usage:
    """Read part of a file in order with dd; both in bytes, of whole MiB."""
    where = ("bs=1M", "iflag=skip_bytes", f"skip={offset}", f"count={length >> 20}")
    return runner.run(Command(("dd", f"if={path}", "of=/dev/null", *where, "status=none")))


def first_byte(path: Path) -> None:
    """Open a file and read its first byte."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if len(os.read(descriptor, 1)) != 1:
            raise BenchFailure(f"{path} is empty")
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Together:
    """Several readers, each of its own file. seconds: of each; shares: of its file that each had
    when the first was done."""

    seconds: list[float]
    shares: list[float]


def read_together(paths: list[Path]) -> Together:
    """Read all files at once, each in a thread, in order, 1 MiB at a time."""
    ready = threading.Barrier(len(paths) + 1)
    done = threading.Event()

    def read(path: Path) -> tuple[float, float]:
        buffer, so_far, had = bytearray(1 << 20), 0, 0
        ready.wait()
        started = time.monotonic()
        with path.open("rb", buffering=0) as file:
            while length := file.readinto(buffer):
                so_far += length
                if not done.is_set():
                    had = so_far
        done.set()
        return time.monotonic() - started, had / so_far

    with ThreadPoolExecutor(len(paths)) as pool:
        running = [pool.submit(read, path) for path in paths]
        ready.wait()
        results = [one.result() for one in running]
    return Together([seconds for seconds, _ in results], [share for _, share in results])


def read_random(
    runner: Runner, path: Path, offsets_by_job: list[list[int]], direct: bool, scratch: Path
) -> RandomReads:
    """Replay one list of offsets a job with fio, all jobs at once, for at most RUNTIME_S."""
    scratch.mkdir(parents=True, exist_ok=True)
    argv = [
        *("fio", "--readonly", "--ioengine=psync", "--rw=randread", f"--bs={BLOCK}"),
        *(f"--direct={int(direct)}", "--fadvise_hint=random", "--replay_no_stall=1"),
        *(f"--runtime={RUNTIME_S}", "--group_reporting", "--output-format=json"),
    ]
    for number, offsets in enumerate(offsets_by_job):
        log = scratch / f"job{number}.iolog"
        lines = [f"{path} read {offset} {BLOCK}\n" for offset in offsets]
        head = f"fio version 2 iolog\n{path} add\n{path} open\n"
        log.write_text("".join([head, *lines, f"{path} close\n"]))
        argv += [f"--name=job{number}", f"--read_iolog={log}"]
    printed, _ = runner.output(Command(tuple(argv)))
    # fio prints notes before the object.
    job = json.loads(printed[printed.index("{") :])["jobs"][0]
    if job["error"] or job["read"]["total_ios"] == 0:
        raise BenchFailure(f"fio on {path}: error {job['error']}")
    read = job["read"]
    p99_us = read["clat_ns"]["percentile"]["99.000000"] / 1000
    return RandomReads(read["iops"], read["total_ios"], p99_us)


def compare(path: Path, disk: Path, offsets: list[int]) -> None:
    """Raises BenchFailure unless the blocks at these offsets are the same in both files."""
    with path.open("rb", buffering=0) as ours, disk.open("rb", buffering=0) as theirs:
        for offset in offsets:
            block = os.pread(ours.fileno(), BLOCK, offset)
            if block != os.pread(theirs.fileno(), BLOCK, offset):
                raise BenchFailure(f"{path} differs from {disk} at {offset}")


def deal(offsets: list[int], jobs: int) -> list[list[int]]:
    """Split offsets so that no two jobs share one."""
    return [offsets[number::jobs] for number in range(jobs)]


def repeated(offsets: list[int], jobs: int, reads_each: int) -> list[list[int]]:
    """For every job the whole set again and again, each time in another order."""
    dealt: list[list[int]] = []
    for number in range(jobs):
        rng = random.Random(number)
        order: list[int] = []
        while len(order) < reads_each:
            order += rng.sample(offsets, len(offsets))
        dealt.append(order)
    return dealt
