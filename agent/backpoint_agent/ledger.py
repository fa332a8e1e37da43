"""The ledger: every outside effect, written down before it is asked for.

An append-only local file, one JSON line an entry, fsynced before the effect happens. What is open
in it after a crash is what the reaper looks for. Knows no vCenter: it decides what is written, in
which order, and that a torn last line is no entry.

Each process writes files of its own only, so no lock is waited for, and what one process says of
another's effect is said by its number. A file goes when its writer is gone, nothing of it is open,
and no other file that is still there needs what it says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from backpoint_agent.effect import Closed, Effect, EffectKind, Intended, Learned, LeftBehind
from backpoint_agent.errors import Busy
from backpoint_agent.ledger_file import (
    SUFFIX,
    FileContent,
    LedgerFile,
    delete_file,
    read_file,
)
from backpoint_agent.state_folder import make_private_folder
from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import UsageError

__all__ = ["Effect", "EffectKind", "Ledger"]

FILE_MAX: Final = 1 << 20
"""Bytes after which the next effect starts a new file: a scheduler lives for months."""

_TAKEN: Final = ".taken"


@dataclass(frozen=True)
class _View:
    """The whole folder at one moment.

    home: the file that each effect was intended in, open or not; open: by number; free: numbers
    that a reaper may take.
    """

    files: list[FileContent]
    home: dict[str, FileContent]
    open: dict[str, Effect]
    free: set[str]

    @property
    def damage(self) -> list[str]:
        return [trouble for file in self.files for trouble in file.damage]


class Ledger:
    """One process's view of the ledger in `folder` (`StateFolder.ledger`, made where missing).

    Thread-safe. All methods raise UsageError naming the path where the ledger cannot be written or
    read; an effect that could not be written down must not happen.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Open it with a new file, and delete the files that nobody needs any more."""
        make_private_folder(folder)
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._open: dict[str, Effect] = {}
        self._file = LedgerFile(folder, clock())
        self._full: list[LedgerFile] = []
        _sweep(folder)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it up: what is still open is the reaper's."""
        for file in (*self._full, self._file):
            file.close()
        # Only tidying: the next ledger that opens does it again, and says what is wrong.
        with contextlib.suppress(UsageError):
            _sweep(self._folder)

    def intend(
        self, kind: EffectKind, vcenter: str, vm: str, vm_name: str, facts: dict[str, str]
    ) -> Effect:
        """Write down what is about to be asked for; durable when it returns.

        The effect's `number` is in no other effect's name, of any process, ever.
        """
        with self._lock:
            self._start_new_file_when_full()
            self._count += 1
            number = f"{self._file.stem}-{self._count}"
            effect = Effect(number, kind, vcenter, vm, vm_name, dict(facts), self._clock())
            self._file.append(Intended(effect))
            self._open[number] = effect
            return effect

    def learned(self, effect: Effect, facts: dict[str, str]) -> Effect:
        """Add what became known (the snapshot's moref); the effect with all its facts."""
        with self._lock:
            self._file.append(Learned(effect.number, dict(facts)))
            known = self._open.get(effect.number, effect)
            known = replace(known, facts={**known.facts, **facts})
            if effect.number in self._open:
                self._open[effect.number] = known
            return known

    def undone(self, effect: Effect, how: str) -> None:
        """The effect is gone, by us ("removed") or by others ("was not there").

        For an effect of this process, or one that was taken over; harmless when repeated.
        """
        with self._lock:
            if effect.number in self._open:
                self._file.append(Closed(effect.number, how, self._clock()))
                del self._open[effect.number]
                self._let_go_of_full_files()

    def leave_behind(self, vcenter: str, vm: str, why: str) -> list[Effect]:
        """Give up whatever this process has still open for the VM: it is the reaper's from now on.

        The last thing that a run does; without it the reaper waits for this process's end.
        """
        with self._lock:
            left = [e for e in self._open.values() if (e.vcenter, e.vm) == (vcenter, vm)]
            for effect in left:
                self._file.append(LeftBehind(effect.number, why, self._clock()))
                del self._open[effect.number]
            self._let_go_of_full_files()
            return left

    def open_effects(self) -> list[Effect]:
        """What processes that are gone have left open, or living ones left behind, oldest first:
        the reaper's work."""
        view = _look(self._folder)
        return sorted((view.open[n] for n in view.free), key=lambda e: (e.at, e.number))

    def all_open(self) -> list[Effect]:
        """Every open effect, of living processes and of this one too."""
        return list(_look(self._folder).open.values())

    def damage(self) -> list[str]:
        """Lines of the ledger that cannot be read; what they said is unknown."""
        return _look(self._folder).damage

    @contextlib.contextmanager
    def take_over(self, effect: Effect) -> Iterator[Effect | None]:
        """The right to undo one of `open_effects`, for this thread alone among all processes.

        Gives the effect with all that is known of it, or None where it is not open any more. When
        it is gone from outside, say `undone` before leaving; else it stays open. Raises Busy where
        somebody else is at it.
        """
        path = self._folder / (effect.number + _TAKEN)
        descriptor = _lock_taken(path, effect)
        try:
            view = _look(self._folder)
            known = view.open.get(effect.number) if effect.number in view.free else None
            if known is None:
                if effect.number not in view.open:
                    _delete_taken(path)
                yield None
                return
            with self._lock:
                self._open[known.number] = known
            try:
                yield known
            finally:
                with self._lock:
                    kept = self._open.pop(known.number, None)
                if kept is None:
                    # Only now: while the effect is open, all must meet at the same file.
                    _delete_taken(path)
        finally:
            os.close(descriptor)

    def _start_new_file_when_full(self) -> None:
        if self._file.size >= FILE_MAX:
            new = LedgerFile(self._folder, self._clock())
            self._full.append(self._file)
            self._file = new
            self._count = 0
            self._let_go_of_full_files()

    def _let_go_of_full_files(self) -> None:
        # An effect is this process's own for as long as the file that it was intended in is held.
        needed = {effect.file_stem for effect in self._open.values()}
        for file in [file for file in self._full if file.stem not in needed]:
            self._full.remove(file)
            file.close()


def _look(folder: Path) -> _View:
    files = _read_files(folder)
    home: dict[str, FileContent] = {}
    effects: dict[str, Effect] = {}
    learned: list[tuple[FileContent, Learned]] = []
    closed: set[str] = set()
    left: set[str] = set()
    for file in files:
        for entry in file.entries:
            match entry:
                case Intended(effect):
                    effects[effect.number] = effect
                    home[effect.number] = file
                case Learned():
                    learned.append((file, entry))
                case Closed(number):
                    closed.add(number)
                case LeftBehind(number):
                    left.add(number)
    # What a reaper learned goes over what the effect's own process knew before.
    learned.sort(key=lambda pair: home.get(pair[1].number) is not pair[0])
    for _, told in learned:
        if known := effects.get(told.number):
            effects[told.number] = replace(known, facts={**known.facts, **told.facts})
    still_open = {number: e for number, e in effects.items() if number not in closed}
    free = {number for number in still_open if home[number].gone or number in left}
    return _View(files, home, still_open, free)


def _read_files(folder: Path) -> list[FileContent]:
    while True:
        try:
            names = sorted(entry.name for entry in os.scandir(folder))
        except OSError as error:
            raise UsageError(f"{folder}: the ledger cannot be read: {error.strerror}") from error
        read = [read_file(folder / name) for name in names if name.endswith(SUFFIX)]
        files = [content for content in read if content is not None]
        # Read again where one was swept away meanwhile: it may have said that what another, read
        # before, has open is closed.
        if len(files) == len(read):
            return files


def _sweep(folder: Path) -> None:
    """Delete what nobody needs. The file that has an effect goes before the file that says that it
    is closed, so that it stays closed whatever happens in between."""
    while any([delete_file(content) for content in _deletable(_look(folder))]):
        fsync_folder(folder)
    for taken in folder.glob(f"*{_TAKEN}"):
        stem = taken.name.removesuffix(_TAKEN).rpartition("-")[0]
        if not (folder / (stem + SUFFIX)).exists():
            _delete_taken(taken)


def _deletable(view: _View) -> list[FileContent]:
    with_open = {view.home[number].path for number in view.open}

    def is_needed(file: FileContent) -> bool:
        speaks_of = {view.home[e.number].path for e in file.entries if e.number in view.home}
        return bool(file.damage) or file.path in with_open or not speaks_of <= {file.path}

    return [file for file in view.files if file.gone and not is_needed(file)]


def _lock_taken(path: Path, effect: Effect) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{path}: the ledger cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Busy(
            f"{effect.vm_name}: another process is clearing up after {effect.number}"
        ) from error
    return descriptor


def _delete_taken(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
