"""A repository in a bucket, 50 ms away on a line of 200 MB/s: backup, cold reads, first file, list.

Decides what is compared with what: every speed is told as a share of the line and of the ceiling,
which is what plain objects of 32 MiB reach over the same line to the same server. Data is
incompressible, so that bytes of the disk are bytes of the line. Local caches are empty each time.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tools.bench.archivers import PASSPHRASE
from tools.bench.buckets import BUCKET, IN_MEMORY, LINE, MEMORY, SEAWEED, Place, place
from tools.bench.content import MIB, noise
from tools.bench.guest_files import PLACE
from tools.bench.points import VMS
from tools.bench.process import BenchFailure, Command, Daemon
from tools.bench.raw_transfer import OBJECT
from tools.bench.reads import compare, drop_caches, read_through, warm
from tools.bench.report import OURS, Row
from tools.bench.session import Session, best_of

from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.repository import Passphrase, create_repository
from backpoint_repo.store.local import LocalStore
from many_points import make_many_points

NAME = "object-store"
CEILING = "32 MiB objects"
RESTIC = "restic"
FIRST_FILE, MOUNT_START = "first file of a guest, cat", "start of the mount"
MANY = (10_000, 100_000)
DATA = 1 << 30
GUEST_DATA = 150 * MIB
_SCRIPT = Path(__file__).with_name("raw_transfer.py")
_COMPARED_EVERY = 37 * MIB


def backup_work(server: str) -> str:
    return f"backup, {server}"


def read_work(server: str) -> str:
    return f"cold read, {server}"


def uncached_work(server: str) -> str:
    return f"cold read, --no-cache, {server}"


def points_work(count: int) -> str:
    return f"list {count:,} points"


def run(session: Session) -> None:
    """Append the rows of this benchmark to the session."""
    folder = session.work / "object-store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    disk = _noise_disk(folder / "noise.raw", min(DATA, session.sizes.data))
    samples: list[Row] = []
    # A real server is shown once: it is the limit itself, and what it does varies little.
    for name, runs in ((MEMORY, session.runs), (SEAWEED, 1)):
        with place(name, 4 * disk.stat().st_size + 256 * MIB) as there:
            for number in range(runs):
                scene = Scene(session, there, folder / f"{name.replace(' ', '-')}-{number}", disk)
                session.say(f"object-store: {name}, run {number + 1} of {runs}")
                for work, rows in scene.parts(only_speed=name != MEMORY):
                    session.collect(NAME, work, OURS, samples, rows)
                there.server.order("clear", None)
    session.rows += best_of(samples)
    shutil.rmtree(folder)


class Scene:
    """One run at one server."""

    def __init__(self, session: Session, there: Place, folder: Path, disk: Path) -> None:
        self._session = session
        self._there = there
        self._folder = folder
        self._disk = disk
        self._size = disk.stat().st_size
        self._ceilings: dict[str, float] = {}
        folder.mkdir()

    def parts(self, only_speed: bool) -> Iterator[tuple[str, Iterator[Row]]]:
        server = self._there.server.name
        yield f"ceiling, {server}", self._ceiling()
        yield backup_work(server), self._backup()
        yield read_work(server), self._read(read_work(server))
        yield uncached_work(server), self._read(uncached_work(server), "--no-cache")
        if any(archiver.name == RESTIC for archiver in self._session.archivers):
            yield f"restic, {server}", self._restic()
        if not only_speed:
            yield FIRST_FILE, self._first_file()
            for count in MANY:
                yield points_work(count), self._points(count)

    def _ceiling(self) -> Iterator[Row]:
        works = {"put": backup_work, "get": read_work}
        for verb, named in works.items():
            count = max(8, self._size // OBJECT)
            argv = (
                sys.executable,
                str(_SCRIPT),
                verb,
                self._there.line.endpoint,
                BUCKET,
                str(count),
            )
            self._there.line.clear()
            printed, usage = self._session.runner.output(
                Command(argv, env=self._there.environment())
            )
            seconds = float(printed)
            work = named(self._there.server.name)
            self._ceilings[work] = count * OBJECT / seconds
            yield Row(
                NAME,
                work,
                CEILING,
                seconds=seconds,
                bytes=count * OBJECT,
                cpu_s=usage.cpu_s,
                peak_rss=usage.peak_rss,
                note=f"{_share(self._ceilings[work])} of the line; {self._traffic()}",
            )

    def _backup(self) -> Iterator[Row]:
        work = backup_work(self._there.server.name)
        repo = self._new_repository("noise")
        warm(self._disk)
        self._there.line.clear()
        words = ("--json", "backup", "image", "--vm", "web01", str(self._disk))
        printed, usage = self._session.runner.output(self._backpoint(repo, *words))
        note = self._note(work, usage.seconds)
        # The rest is the start of Python, scrypt and the opening, however much is stored.
        note += f"; {json.loads(printed)['duration_s']:.1f} s of it the session"
        yield Row(NAME, work, OURS, usage.seconds, self._size, None, usage.cpu_s, usage.peak_rss,
                  note=note)  # fmt: skip

    def _read(self, work: str, *options: str) -> Iterator[Row]:
        at = self._folder / "mnt"
        path = at / "vms" / "web01" / "latest" / "disk0-flat.vmdk"
        with self._mounted("noise", at, *options) as daemon:
            self._there.line.clear()
            before = daemon.cpu_s()
            usage = read_through(self._session.runner, path)
            note = self._note(work, usage.seconds)
            compare(path, self._disk, list(range(0, self._size, _COMPARED_EVERY)))
            yield Row(NAME, work, OURS, usage.seconds, self._size, None, daemon.cpu_s() - before,
                      daemon.peak_rss(), note=note)  # fmt: skip

    def _restic(self) -> Iterator[Row]:
        server = self._there.server.name
        env = {
            **self._there.environment(),
            "RESTIC_PASSWORD": PASSPHRASE,
            "RESTIC_CACHE_DIR": str(self._folder / "restic-cache"),
        }
        address = f"s3:{self._there.line.endpoint}/{BUCKET}/{self._folder.name}-restic"
        restic = partial(_restic_command, str(self._session.executables[RESTIC]), address, env)
        self._session.runner.run(restic("init"))
        target = str(self._folder / "restored")
        works = {
            backup_work(server): ("backup", "--quiet", str(self._disk)),
            read_work(server): ("restore", "--quiet", "latest", "--target", target),
        }
        for work, words in works.items():
            warm(self._disk)
            self._there.line.clear()
            usage = self._session.runner.run(restic(*words))
            note = self._note(work, usage.seconds) + ("; restored" if "restore" in words else "")
            yield Row(NAME, work, RESTIC, usage.seconds, self._size, None, usage.cpu_s,
                      usage.peak_rss, note=note)  # fmt: skip
        shutil.rmtree(target)

    def _first_file(self) -> Iterator[Row]:
        disk = self._session.disks.fleet(GUEST_DATA).day1
        repo = self._new_repository("guest")
        command = self._backpoint(repo, "backup", "image", "--vm", "web01", str(disk), near=True)
        self._session.runner.run(command)
        at = self._folder / "mnt"
        guest = at / "vms" / "web01" / "latest" / "guest"
        with self._mounted("guest", at) as daemon:
            yield Row(NAME, MOUNT_START, OURS, daemon.ready_s, note=self._traffic())
            self._there.line.clear()
            started = time.monotonic()
            # The name is known beforehand, as it is to who asks for one file.
            usage = self._session.runner.run(Command(("cat", str(guest / PLACE / "srv/00/000000"))))
            seconds = time.monotonic() - started
            yield Row(NAME, FIRST_FILE, OURS, seconds, cpu_s=usage.cpu_s,
                      peak_rss=daemon.peak_rss(), note=self._traffic())  # fmt: skip

    def _points(self, count: int) -> Iterator[Row]:
        repo = self._address(f"points-{count}")
        # Not on a disk: the local store waits for it with each of them.
        with TemporaryDirectory(dir=IN_MEMORY, prefix="bench-points-") as folder:
            chunks = ChunkParameters.with_average(64 << 10)
            passphrase = Passphrase(PASSPHRASE)
            repository = create_repository(LocalStore(Path(folder)), passphrase, chunks)
            make_many_points(repository, VMS, count // VMS)
            there = {"folder": folder, "prefix": repo.partition("//")[2]}
            self._there.server.order("load", there)
        self._there.line.clear()
        printed, usage = self._session.runner.output(self._backpoint(repo, "--json", "points"))
        listed = len(json.loads(printed)["points"])
        if listed != count:
            raise BenchFailure(f"{listed} points listed, not {count}")
        yield Row(NAME, points_work(count), OURS, usage.seconds, cpu_s=usage.cpu_s,
                  peak_rss=usage.peak_rss, note=self._traffic())  # fmt: skip

    def _mounted(self, name: str, at: Path, *options: str) -> AbstractContextManager[Daemon]:
        at.mkdir(exist_ok=True)
        drop_caches()
        self._forget_caches()
        self._there.line.clear()
        latest = at / "vms" / "web01" / "latest"
        return self._session.runner.daemon(
            self._backpoint(self._address(name), "mount", str(at), "--foreground", *options),
            latest.exists,
            Command((str(self._session.executables[OURS]), "umount", str(at))),
        )

    def _new_repository(self, name: str) -> str:
        repo = self._address(name)
        self._session.runner.run(self._backpoint(repo, "init", near=True))
        self._forget_caches()
        return repo

    def _address(self, name: str) -> str:
        return f"s3://{BUCKET}/{self._folder.name}/{name}"

    def _forget_caches(self) -> None:
        shutil.rmtree(self._folder / "cache", ignore_errors=True)

    def _backpoint(self, repo: str, *words: str, near: bool = False) -> Command:
        env = {
            **self._there.environment(near),
            "BACKPOINT_PASSPHRASE": PASSPHRASE,
            "BACKPOINT_CACHE": str(self._folder / "cache"),
        }
        return Command((str(self._session.executables[OURS]), "-r", repo, *words), env=env)

    def _note(self, work: str, seconds: float) -> str:
        server, speed = self._there.server.name, self._size / seconds
        said = f"{_share(speed)} of the line; "
        ceiling = self._ceilings.get(work if work == backup_work(server) else read_work(server))
        if ceiling is not None:
            said += f"{speed / ceiling:.0%} of the ceiling; "
        return said + self._traffic()

    def _traffic(self) -> str:
        counts = self._there.line.counts()
        by_method = ", ".join(f"{number} {verb}" for verb, number in sorted(counts.methods.items()))
        return f"{by_method}; at most {counts.most_in_flight} at once"


def _restic_command(executable: str, address: str, env: dict[str, str], *words: str) -> Command:
    return Command((executable, "-r", address, *words), env=env)


def _noise_disk(path: Path, size: int) -> Path:
    rng = np.random.default_rng(7)
    with path.open("wb") as file:
        for _ in range(size // (16 * MIB)):
            file.write(noise(rng, 16 * MIB))
    return path


def _share(speed: float) -> str:
    assert LINE.bytes_per_s
    return f"{speed / LINE.bytes_per_s:.0%}"
