"""Real commands that are killed, or stopped like a machine that sleeps, at moments drawn by lot.

Decides when, from how long such commands took so far; and what no command may ever do: show a
traceback, end with a code that its help does not know, hang.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backpoint_repo.format import Kind
from command_line import COMMAND
from faults.thrash_moments import changes_of, put_of
from faults.thrash_points import Broken
from faults.thrash_server import Child, CommandServer

LIMIT_S: Final = 240
_FIRST_GUESS_S: Final = 0.5
_KILLED: Final = 0.2
_STOPPED: Final = {"backup": 0.35, "prune": 0.2}
_STOPPED_ELSE: Final = 0.1
_SLEEP_S: Final = (0.2, 4.0)
_ENDED_ASLEEP: Final = 0.4
_FOLDERS: Final = ("tmp", "tmp", "index", "trash", "points", "leases")
_PUTS: Final = {
    "backup": (Kind.POINT, Kind.POINT, Kind.INDEX, Kind.DATA_PACK),
    "collect": (Kind.TRASH, Kind.TRASH, Kind.INDEX, Kind.DATA_PACK, Kind.LEASE),
    "live": (Kind.NOTE, Kind.POINT, Kind.LEASE),
}
_PUTS_ELSE: Final = (Kind.LEASE, Kind.NOTE, Kind.INDEX)
_LOOK_S: Final = 0.001
_TOLD_BUG: Final = "this is a bug"


@dataclass(frozen=True)
class End:
    """How a command ended. revoked: its lease was ended from outside meanwhile."""

    code: int
    out: str
    err: str
    revoked: bool = False

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def record(self) -> dict[str, Any]:
        record = json.loads(self.out.splitlines()[-1])
        assert isinstance(record, dict)
        return record


class Processes:
    """Runs commands in `folder` on the repository there. Thread-safe. log: open for writing."""

    def __init__(self, folder: Path, passphrase: str) -> None:
        self._folder = folder
        self._began = time.monotonic()
        self._log = (folder / "log").open("w", buffering=1)
        self._lock = threading.Lock()
        self._typical: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        clean = {name: text for name, text in os.environ.items() if "BACKPOINT" not in name}
        self.environment = clean | {
            "BACKPOINT_REPO": str(folder / "repo"),
            "BACKPOINT_PASSPHRASE": passphrase,
            "BACKPOINT_CACHE": str(folder / "cache"),
            "BACKPOINT_LIVE": str(folder / "live"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self._server = CommandServer(folder / "outputs", self.environment)

    @property
    def counts(self) -> dict[str, int]:
        """How often each command ended how."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def tell(self, line: str) -> None:
        """Into the log, with the time."""
        self._log.write(f"{time.monotonic() - self._began:8.2f} {line}\n")

    def start_mount(self, place: Path, log: Path) -> subprocess.Popen[bytes]:
        """The installed command, in the foreground."""
        with log.open("w") as out:
            words = [str(COMMAND), "mount", "--foreground", str(place)]
            process = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        self.tell(f"[{process.pid}] mount")
        return process

    def run(
        self,
        *words: str,
        rng: random.Random | None = None,
        codes: Collection[int] = (0,),
        meanwhile: Callable[[], None] | None = None,
    ) -> End:
        """To its end. rng: draws whether and when it is killed or stopped; None: neither.
        meanwhile: what is mostly done while it is stopped.

        Raises Broken where it ends in no way that is known.
        """
        began = time.monotonic()
        child = self._server.start((*words, "--json"))
        self.tell(f"[{child.pid}] {' '.join(words)}")
        revoked = rng is not None and self._interfere(child, rng, words[0], meanwhile)
        if not child.wait(LIMIT_S):
            child.send(signal.SIGKILL)
            raise Broken(f"{words} hangs")
        child.close()
        assert child.code is not None, "the server of commands has ended"
        out, err = (path.read_text(errors="replace") for path in (child.out, child.err))
        child.out.unlink()
        child.err.unlink()
        end = End(child.code, out, err, revoked)
        self._judge(child.pid, words, end, codes, time.monotonic() - began)
        return end

    def close(self) -> None:
        """Everything must have ended."""
        self._server.close()
        self._log.close()

    def end_lease(self, pid: int) -> bool:
        """As a collector does to who was silent for too long; whether there was one."""
        ended = False
        for lease in self.run("leases").record["leases"]:
            if lease["pid"] == pid:
                # Another may be faster, or the session may just have given it back.
                end = self.run("leases", "--end", lease["session"], codes=(0, 2))
                ended = ended or not end.code
        return ended

    def _interfere(
        self, child: Child, rng: random.Random, name: str, meanwhile: Callable[[], None] | None
    ) -> bool:
        """Whether its lease was ended."""
        fate = rng.random()
        sleep_s, ended_asleep = rng.uniform(*_SLEEP_S), rng.random() < _ENDED_ASLEEP
        if fate > _KILLED + _STOPPED.get(name, _STOPPED_ELSE):
            return False
        if self._ends_before(child, rng, name):
            return False
        if fate <= _KILLED:
            child.send(signal.SIGKILL)
            return False
        self.tell(f"[{child.pid}] is stopped for {sleep_s:.1f} s")
        child.send(signal.SIGSTOP)
        try:
            revoked = ended_asleep and self.end_lease(child.pid)
            if meanwhile is None or rng.random() < 0.3:
                time.sleep(sleep_s)
            else:
                meanwhile()
            return revoked
        finally:
            child.send(signal.SIGCONT)

    def _ends_before(self, child: Child, rng: random.Random, name: str) -> bool:
        """Wait for a moment drawn by lot; whether the command has ended before."""
        with self._lock:
            typical_s = self._typical.get(name, _FIRST_GUESS_S)
        if rng.random() < 0.35:
            return child.wait(rng.uniform(0.05, 1.1) * typical_s)
        repo = self._folder / "repo"
        if rng.random() < 0.5:
            comes = put_of(repo, rng.choice(_PUTS.get(name, _PUTS_ELSE)))
        else:
            comes = changes_of(repo / rng.choice(_FOLDERS), rng.randint(1, rng.choice((2, 12))))
        while not child.wait(_LOOK_S):
            if comes():
                return child.wait(rng.choice((0, 0, rng.uniform(0, 0.03))))
        return True

    def _judge(
        self, pid: int, words: tuple[str, ...], end: End, codes: Collection[int], took_s: float
    ) -> None:
        said = f"[{pid}] {words[0]} ended with {end.code}{' (revoked)' if end.revoked else ''}"
        self.tell(f"{said} {end.out.strip()[-1500:]} {_last_line(end.err) if end.code else ''}")
        with self._lock:
            how = f"{words[0]} {end.code}{' revoked' if end.revoked else ''}"
            self._counts[how] = self._counts.get(how, 0) + 1
            if not end.code and not end.revoked:
                before = self._typical.get(words[0], took_s)
                self._typical[words[0]] = 0.8 * before + 0.2 * took_s
        judge_output(f"{said}: {words}", end.err)
        known = end.killed or end.code in codes or (end.revoked and end.code == 4)
        if not known:
            raise Broken(f"{said}: {words}\n{end.out}\n{end.err}")


def judge_output(who: str, text: str) -> None:
    """Raises Broken where it holds a traceback."""
    if _TOLD_BUG in text or "Traceback" in text:
        raise Broken(f"{who}\n{text}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
