"""A mount whose files are read slowly and whose live sessions are written, and that may be killed.

A reader that has opened a file of a point that stood then gets the right bytes, whatever is removed
and collected; an error only when its mount was killed or its lease was ended.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.thrash_disks import State
from faults.thrash_points import Broken
from faults.thrash_processes import LIMIT_S, judge_output
from faults.thrash_work import Ground
from leftovers import find_leftovers

_READERS: Final = 3
_PIECE: Final = 48 << 10
_UP_S: Final = (3.0, 14.0)
_BEGIN_S: Final = 60.0


@dataclass
class _Sessions:
    """Live sessions by name: the point each stands on, and what its disks hold."""

    known: dict[str, tuple[str, State]] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)


class MountWorker:
    """For one thread. Sessions outlive its mounts."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._place = ground.folder / "mount"
        self._sessions = _Sessions()

    def work(
        self, rng: random.Random, goes_on: Callable[[], bool], told: Callable[[Exception], None]
    ) -> None:
        """One mount after another, as long as it goes on."""
        while goes_on():
            self._mount_once(rng, goes_on, told)

    def discard_all(self) -> None:
        """All sessions end."""
        for name in [*self._sessions.known, *self._sessions.doubtful]:
            self._let_go(name)
            self._ground.processes.run("live", "discard", name, "--yes", codes=(0, 2))
        self._sessions = _Sessions()

    def _mount_once(
        self, rng: random.Random, goes_on: Callable[[], bool], told: Callable[[Exception], None]
    ) -> None:
        ground = self._ground
        self._place.mkdir(exist_ok=True)
        end = time.monotonic() + rng.uniform(*_UP_S)
        log = ground.folder / f"mount-{next(ground.numbers)}.log"
        process = ground.processes.start_mount(self._place, log)
        unprotected, over = threading.Event(), threading.Event()
        readers = [
            _Reader(ground, self._place, random.Random(rng.random()), unprotected, over)
            for _ in range(_READERS)
        ]
        try:
            self._wait_until_mounted(process, log)
            for reader in readers:
                reader.thread.start()
            while goes_on() and time.monotonic() < end:
                self._use_session(rng)
                time.sleep(rng.uniform(0.1, 0.6))
            self._strike(rng, process, unprotected)
        finally:
            over.set()
            self._end(process, readers, unprotected)
            judge_output(str(log), log.read_text(errors="replace"))
        ground.processes.tell(f"{sum(reader.files for reader in readers)} files were read")
        for reader in readers:
            for broken in reader.broken:
                told(broken)

    def _wait_until_mounted(self, process: subprocess.Popen[bytes], log: Path) -> None:
        end = time.monotonic() + _BEGIN_S
        while f" {self._place} " not in Path("/proc/self/mountinfo").read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise Broken(f"the mount does not begin: {log.read_text()}")
            time.sleep(0.05)

    def _strike(
        self, rng: random.Random, process: subprocess.Popen[bytes], unprotected: threading.Event
    ) -> None:
        """Killed, or asleep for a while; or nothing."""
        fate = rng.random()
        if fate < 0.35:
            unprotected.set()
            self._ground.processes.tell(f"[{process.pid}] the mount is killed")
            process.kill()
        elif fate < 0.6:
            self._ground.processes.tell(f"[{process.pid}] the mount is stopped")
            process.send_signal(signal.SIGSTOP)
            try:
                if fate < 0.5:
                    unprotected.set()
                    self._ground.processes.end_lease(process.pid)
                time.sleep(rng.uniform(0.5, 4))
            finally:
                process.send_signal(signal.SIGCONT)
            time.sleep(rng.uniform(0, 3))

    def _end(
        self,
        process: subprocess.Popen[bytes],
        readers: list[_Reader],
        unprotected: threading.Event,
    ) -> None:
        for reader in readers:
            if reader.thread.ident:
                reader.thread.join(LIMIT_S)
            if reader.thread.is_alive():
                process.kill()
                raise Broken("a reader of the mount hangs")
        # Others on this machine look at all mounts now and then, and then it is in use.
        busy_until = time.monotonic() + _BEGIN_S
        while process.poll() is None or find_leftovers(within=self._place):
            self._ground.processes.run("umount", str(self._place), codes=(0, 2))
            if time.monotonic() > busy_until:
                process.kill()
                raise Broken("the mount did not end when it was unmounted")
        code = process.wait()
        self._ground.processes.tell(f"[{process.pid}] the mount ended with {code}")
        if code not in (0, -signal.SIGKILL):
            raise Broken(f"the mount ended with {code}")

    def _use_session(self, rng: random.Random) -> None:
        """Begin, write, commit or discard one."""
        names = list(self._sessions.known)
        if not names or (len(names) < 3 and rng.random() < 0.1):
            self._start(rng)
        elif rng.random() < 0.6:
            self._write(rng, rng.choice(names))
        elif rng.random() < 0.6:
            self._commit(rng, rng.choice(names))
        else:
            self._discard(rng, rng.choice([*names, *self._sessions.doubtful]))

    def _start(self, rng: random.Random) -> None:
        ground, name = self._ground, f"s{next(self._ground.numbers)}"
        promise = ground.promises.choose(rng)
        if promise is None:
            return
        words = ("live", "start", promise.selector, "--name", name)
        end = ground.processes.run(*words, rng=rng, codes=(0, 2, 4))
        if not end.code:
            ground.promises.held(promise.point_id, name)
            self._sessions.known[name] = promise.point_id, ground.fleet.copied(promise.state)
        elif end.killed:
            self._sessions.doubtful.add(name)
        elif not end.revoked and not ground.promises.may_be_gone(promise.point_id):
            raise Broken(f"{promise.selector} cannot be used live: {end}")

    def _write(self, rng: random.Random, name: str) -> None:
        """Through the mount, and synced."""
        point_id, state = self._sessions.known[name]
        disk = rng.choice(state.disks)
        offset = rng.randrange(disk.stat().st_size)
        data = rng.randbytes(min(rng.randint(1, 100_000), disk.stat().st_size - offset))
        path = self._place / "live" / name / f"{disk.stem}-flat.vmdk"
        if not path.exists():
            return  # the mount has not seen the session yet
        with path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data, offset)
            os.fsync(file.fileno())
        self._ground.processes.tell(f"{len(data)} bytes are written in {name}")
        altered = self._ground.fleet.altered(state, disk.name, offset, data)
        self._sessions.known[name] = point_id, altered

    def _commit(self, rng: random.Random, name: str) -> None:
        ground, (point_id, state) = self._ground, self._sessions.known[name]
        kept = ground.fleet.copied(state)
        ground.states[kept.label] = kept
        # It moves its hold to the new point at some moment.
        ground.promises.let_go(point_id, name)
        words = ("live", "commit", name, "--label", kept.label)
        end = ground.processes.run(*words, rng=rng)
        if end.code:
            self._doubt(name)
        else:
            ground.promises.published(end.record["id"], kept, holder=name)
            self._sessions.known[name] = end.record["id"], state

    def _discard(self, rng: random.Random, name: str) -> None:
        self._let_go(name)
        self._doubt(name)
        end = self._ground.processes.run("live", "discard", name, "--yes", rng=rng, codes=(0, 2))
        if not end.killed:
            self._sessions.doubtful.discard(name)

    def _let_go(self, name: str) -> None:
        if name in self._sessions.known:
            self._ground.promises.let_go(self._sessions.known[name][0], name)

    def _doubt(self, name: str) -> None:
        self._sessions.known.pop(name, None)
        self._sessions.doubtful.add(name)


class _Reader:
    """Reads one file after another, each slowly and in any order. Runs in `thread`."""

    def __init__(
        self,
        ground: Ground,
        place: Path,
        rng: random.Random,
        unprotected: threading.Event,
        over: threading.Event,
    ) -> None:
        self._ground = ground
        self._place = place
        self._rng = rng
        self._unprotected = unprotected
        self._over = over
        self.broken: list[Exception] = []
        self.files = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._over.wait(self._rng.uniform(0.05, 0.3)):
                self._read_one()
        except (Broken, ValueError) as error:
            self.broken.append(error)

    def _read_one(self) -> None:
        folders = sorted(self._place.glob("vms/*/2*"))
        folder = self._rng.choice(folders) if folders else self._place
        try:
            told = json.loads((folder / "point.json").read_bytes())
        except OSError:
            return  # it went while it was looked at, or the mount did
        state = self._ground.states.get(told["label"])
        if state is None:
            return
        disk = self._rng.choice(state.disks)
        stored = self._ground.repo / "points" / told["id"]
        stood: bool | None = None
        try:
            with (folder / f"{disk.stem}-flat.vmdk").open("rb", buffering=0) as file:
                stood = stored.exists()
                tell = self._ground.processes.tell
                tell(f"a reader has opened {told['id']}, which {'stands' if stood else 'is gone'}")
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                self._compare(file.fileno(), disk.read_bytes(), f"{folder}/{disk.stem}")
                self.files += 1
                tell(f"a reader has read {told['id']}")
        except OSError as error:
            # Opened after the point had gone: nobody has promised that.
            self._ground.processes.tell(f"a reader of {told['id']}: {error}")
            stood = stored.exists() if stood is None else stood
            if stood and not self._unprotected.is_set():
                raise Broken(f"{folder} ({told['id']}) cannot be read: {error}") from error

    def _compare(self, fd: int, expected: bytes, name: str) -> None:
        places = list(range(0, len(expected), _PIECE))
        self._rng.shuffle(places)
        pause_s = self._rng.uniform(0, 12) / len(places)
        for at in places:
            data = os.pread(fd, _PIECE, at)
            if data != expected[at : at + _PIECE]:
                raise Broken(f"{name}: wrong bytes at {at}")
            # Who is to end reads the rest at once.
            self._over.wait(pause_s)
