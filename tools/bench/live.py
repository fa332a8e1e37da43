"""Live sessions: start, boot to a marker, reads through NFS, random writes with fsync, commits.

Decides what is compared: a raw file on the same disk for boots and writes, the direct mount for
NFS. Every boot and every read is cold: kernel caches dropped, a new daemon. Machines are emulated
(TCG), so a boot says "the same order as raw", no more.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.bench.archivers import PASSPHRASE, Backpoint
from tools.bench.content import MIB
from tools.bench.process import BenchFailure, Command, Daemon, Runner
from tools.bench.reads import drop_caches, read_through
from tools.bench.report import OURS, Row
from tools.bench.session import Session, best_of

from guest_disks import NoMarker, boot, build_bootable

NAME = "live"
START = "session start, 1 TiB disk"
BOOT, BOOT_NFS = "boot to marker", "boot to marker, NFS"
SEQUENTIAL = "sequential read"
RAW, DIRECT = "raw file", "direct mount"
JOBS = (1, 16)
COMMITTED = (16, 64, 256)
_HUGE, _DISK, _GUEST, _WRITTEN = "huge", "disk", "guest", "written"
_WRITE_SIZE = 512 * MIB
_RUNTIME_S = 5
_BOOT_S = 120.0
_PORT, _MOUNT_PORT = 22049, 22048


def write_work(jobs: int) -> str:
    return f"random 4 KiB write and fsync x{jobs}"


def commit_work(written: int) -> str:
    return f"commit of {written} MiB written"


def run(session: Session) -> None:
    """Append the rows of this benchmark to the session."""
    for archiver in session.archivers:
        if isinstance(archiver, Backpoint):
            scene = LiveScene(session.runner, archiver, session.work / "live")
            session.attempt(NAME, "backup", OURS, partial(_prepare, session, scene))
            samples: list[Row] = []
            for work, rows in {
                START: _starts(session, scene),
                BOOT: _boots(session, scene),
                SEQUENTIAL: _sequential(session, scene),
                "writes": _writes(session, scene),
                "commits": _commits(session, scene),
            }.items():
                session.say(f"live: {work}")
                session.collect(NAME, work, OURS, samples, rows)
            session.rows += best_of(samples)
            shutil.rmtree(scene.folder, ignore_errors=True)


@dataclass(frozen=True)
class LiveScene:
    """A repository with points, its sessions, and the ways they are shown."""

    runner: Runner
    archiver: Backpoint
    folder: Path

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def home(self) -> Path:
        return self.folder / "sessions"

    def raw(self, vm: str) -> Path:
        """The disk that was backed up as this VM."""
        return self.folder / f"{vm}.raw"

    def command(self, *words: str) -> Command:
        backpoint = (str(self.archiver.executable), "-r", str(self.repo), *words)
        return Command(backpoint, env={"BACKPOINT_PASSPHRASE": PASSPHRASE})

    def start(self, vm: str, name: str) -> float:
        """Seconds that starting a session took, Python's start and the passphrase included."""
        words = ("live", "start", f"{vm}@latest", "--name", name, "--live", str(self.home))
        return self.runner.run(self.command(*words)).seconds

    def discard(self, name: str) -> None:
        self.runner.run(self.command("live", "discard", name, "--live", str(self.home), "--yes"))

    @contextmanager
    def mounted(self) -> Iterator[tuple[Daemon, Path]]:
        """Cold, with all sessions."""
        at = self.folder / "mnt"
        at.mkdir(exist_ok=True)
        drop_caches()
        words = ("mount", str(at), "--foreground", "--live", str(self.home))
        stop = self.archiver.unmount(at)
        with self.runner.daemon(self.command(*words), lambda: os.path.ismount(at), stop) as daemon:
            yield daemon, at

    @contextmanager
    def exported(self) -> Iterator[Daemon]:
        """Cold, over NFS on loopback."""
        drop_caches()
        ports = ("--port", str(_PORT), "--mount-port", str(_MOUNT_PORT))
        command = self.command("export", "--nfs", *ports, "--live", str(self.home))
        with self.runner.daemon(command, self._answers) as daemon:
            yield daemon

    def _answers(self) -> bool:
        try:
            self.runner.run(Command(("nfs-ls", nfs_url("", 3))))
        except BenchFailure:
            return False
        return True


def nfs_url(path: str, version: int) -> str:
    ports = f"nfsport={_PORT}&mountport={_MOUNT_PORT}"
    return f"nfs://127.0.0.1/backpoint/{path}?version={version}&{ports}"


def _prepare(session: Session, scene: LiveScene) -> None:
    shutil.rmtree(scene.folder, ignore_errors=True)
    scene.home.mkdir(parents=True)
    build_bootable(scene.raw(_GUEST))
    with scene.raw(_HUGE).open("wb") as huge:
        huge.write(os.urandom(MIB))
        huge.truncate(1 << 40)
    shutil.copy(session.disks.fleet(session.sizes.data).day1, scene.raw(_DISK))
    scene.raw(_WRITTEN).write_bytes(os.urandom(_WRITE_SIZE))
    session.runner.run(scene.archiver.create(scene.repo))
    for vm in (_GUEST, _HUGE, _DISK, _WRITTEN):
        session.runner.run(scene.archiver.backup(scene.repo, vm, scene.raw(vm)))


def _starts(session: Session, scene: LiveScene) -> Iterator[Row]:
    for number in range(session.runs):
        yield Row(NAME, START, OURS, seconds=scene.start(_HUGE, f"huge{number}"))
        scene.discard(f"huge{number}")


def _boots(session: Session, scene: LiveScene) -> Iterator[Row]:
    for number in range(session.runs):
        copy = scene.folder / "boot.raw"
        shutil.copy(scene.raw(_GUEST), copy)
        drop_caches()
        seconds = _boot(f"file={copy},format=raw,cache=none")
        yield Row(NAME, BOOT, RAW, seconds=seconds)
        yield Row(NAME, BOOT_NFS, RAW, seconds=seconds)
        copy.unlink()
        name = f"boot{number}"
        scene.start(_GUEST, name)
        with scene.mounted() as (daemon, at):
            flat = at / "live" / name / "disk0-flat.vmdk"
            yield _row(BOOT, daemon, _boot(f"file={flat},format=raw,cache=none"))
        scene.discard(name)
        scene.start(_GUEST, name)
        with scene.exported() as daemon:
            # QEMU's own client takes no ports, and asks the port mapper.
            url = f"nfs://127.0.0.1/backpoint/live/{name}/disk0-flat.vmdk"
            yield _row(BOOT_NFS, daemon, _boot(f"file={url},format=raw"))
        scene.discard(name)


def _boot(drive: str) -> float:
    try:
        return boot(drive, timeout_s=_BOOT_S, snapshot=False).seconds
    except NoMarker as error:
        raise BenchFailure(f"no marker from {drive}: {error}") from error


def _sequential(session: Session, scene: LiveScene) -> Iterator[Row]:
    size = scene.raw(_DISK).stat().st_size
    for _ in range(session.runs):
        with scene.mounted() as (daemon, at):
            flat = at / "vms" / _DISK / "latest" / "disk0-flat.vmdk"
            yield _row(SEQUENTIAL, daemon, read_through(session.runner, flat).seconds, size, DIRECT)
        with scene.exported() as daemon:
            point = _only_point(session.runner)
            url = nfs_url(f"vms/{_DISK}/{point}/disk0-flat.vmdk", 3)
            usage = session.runner.run(Command(("sh", "-c", 'nfs-cat "$0" > /dev/null', url)))
            yield _row(SEQUENTIAL, daemon, usage.seconds, size)


def _only_point(runner: Runner) -> str:
    listed, _ = runner.output(Command(("nfs-ls", nfs_url(f"vms/{_DISK}", 3))))
    names = [line.split()[-1] for line in listed.splitlines() if line.startswith("d")]
    found = [name for name in names if name not in (".", "..", "latest")]
    if len(found) != 1:
        raise BenchFailure(f"not one point over NFS, but {found}")
    return found[0]


def _writes(session: Session, scene: LiveScene) -> Iterator[Row]:
    raw = scene.folder / "write.raw"
    for number in range(session.runs):
        for jobs in JOBS:
            shutil.copy(scene.raw(_WRITTEN), raw)
            drop_caches()
            per_second, note = _fio(session.runner, raw, jobs)
            yield Row(NAME, write_work(jobs), RAW, per_second=per_second, note=note)
            name = f"write{number}-{jobs}"
            scene.start(_WRITTEN, name)
            with scene.mounted() as (daemon, at):
                flat = at / "live" / name / "disk0-flat.vmdk"
                cpu = daemon.cpu_s()
                per_second, note = _fio(session.runner, flat, jobs)
                yield Row(
                    NAME,
                    write_work(jobs),
                    OURS,
                    per_second=per_second,
                    cpu_s=daemon.cpu_s() - cpu,
                    peak_rss=daemon.peak_rss(),
                    note=note,
                )
            scene.discard(name)


def _fio(runner: Runner, path: Path, jobs: int) -> tuple[float, str]:
    """Writes a second, each followed by fsync, and their 99th percentile."""
    how = ("--rw=randwrite", "--bs=4k", "--fsync=1", "--ioengine=psync", f"--numjobs={jobs}")
    span = (f"--runtime={_RUNTIME_S}", "--time_based", "--group_reporting")
    where = ("--name=w", f"--filename={path}", "--allow_file_create=0")
    argv = ("fio", *where, *how, *span, "--output-format=json")
    printed, _ = runner.output(Command(argv))
    job = json.loads(printed[printed.index("{") :])["jobs"][0]
    if job["error"] or job["write"]["total_ios"] == 0:
        raise BenchFailure(f"fio on {path}: error {job['error']}")
    p99_us = job["sync"]["lat_ns"]["percentile"]["99.000000"] / 1000
    return job["write"]["iops"], f"p99 of fsync {p99_us:.0f} us"


def _commits(session: Session, scene: LiveScene) -> Iterator[Row]:
    for written in COMMITTED:
        for number in range(session.runs):
            name = f"commit{written}-{number}"
            scene.start(_WRITTEN, name)
            with scene.mounted() as (daemon, at):
                _overwrite(at / "live" / name / "disk0-flat.vmdk", written * MIB)
                started = time.monotonic()
                words = ("live", "commit", name, "--live", str(scene.home))
                session.runner.run(scene.command(*words))
                yield _row(commit_work(written), daemon, time.monotonic() - started, written * MIB)
            scene.discard(name)


def _overwrite(disk: Path, size: int) -> None:
    with disk.open("r+b", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def _row(
    work: str, daemon: Daemon, seconds: float, size: int | None = None, tool: str = OURS
) -> Row:
    return Row(
        NAME,
        work,
        tool,
        seconds=seconds,
        bytes=size,
        cpu_s=daemon.cpu_s(),
        peak_rss=daemon.peak_rss(),
    )
