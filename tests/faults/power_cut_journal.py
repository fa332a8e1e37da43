"""What this process asks of the operating system below a folder, step by step.

Names that came and went, contents that were written, files and folders that were synced, in one
order. Real files lie underneath. What a power cut makes of it is for `power_cut_disk.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class PowerIsOff(BaseException):
    """The process was killed before this call; whatever it does to clean up does not happen."""


class Named(NamedTuple):
    """From now on `name` in a folder leads to a node; None: the name is gone."""

    folder: int
    name: str
    node: int | None


class Wrote(NamedTuple):
    """The whole content of a file, from now on."""

    node: int
    content: bytes


class Synced(NamedTuple):
    """A file's content, or a folder's names, are safe."""

    node: int


class Promised(NamedTuple):
    """What the test was told at this moment, and may rely on after a cut."""

    what: str


Step = Named | Wrote | Synced | Promised
TOP = 0
_PATCHED = ("open", "write", "writev", "pwrite", "fsync", "link", "unlink", "mkdir", "rename")


@dataclass
class Journal:
    """Every step, in the order they were made. before: what was there and safe already."""

    steps: list[Step] = field(default_factory=list)
    before: int = 0
    folders: set[int] = field(default_factory=lambda: {TOP})

    def promise(self, what: str) -> None:
        """Note that something returned, and with it became certain."""
        self.steps.append(Promised(what))


class Recorder:
    """Writes down what this process does below a folder that exists. One at a time."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self.journal = Journal()
        self.dies_before: int | None = None
        """The number of the call before which the process is killed."""
        self.calls = 0
        self._lock = threading.RLock()
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in _PATCHED}
        self._next = TOP + 1
        self._nodes = {os.stat(top).st_ino: TOP}
        self._contents: dict[int, bytes] = {}
        self._adopt(top)
        self.journal.before = len(self.journal.steps)

    @contextmanager
    def running(self) -> Iterator[Journal]:
        """The time during which it looks."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _PATCHED:
                patch.setattr(os, name, getattr(self, f"_{name}"))
            yield self.journal

    @contextmanager
    def killed_before(self, call: int) -> Iterator[None]:
        """A process that is killed before its n-th changing call, from 0, if it makes so many."""
        self.calls, self.dies_before = 0, call
        try:
            yield
        except PowerIsOff:
            pass
        finally:
            self.dies_before = None

    def _adopt(self, folder: Path) -> None:
        """What is there before it all begins is safe."""
        owner = self._nodes[os.stat(folder).st_ino]
        for entry in sorted(folder.iterdir()):
            node = self._new_node(entry)
            self.journal.steps += [Named(owner, entry.name, node), Synced(owner)]
            if entry.is_dir():
                self.journal.folders.add(node)
                self._adopt(entry)
            else:
                self._look(entry)
                self.journal.steps.append(Synced(node))

    def _new_node(self, path: Path) -> int:
        node, self._next = self._next, self._next + 1
        self._nodes[os.stat(path, follow_symlinks=False).st_ino] = node
        self._contents[node] = b""
        return node

    def _look(self, place: Path | int) -> None:
        """Note a file's content where it is not as it was when last looked at."""
        where = f"/proc/self/fd/{place}" if isinstance(place, int) else str(place)
        node = self._nodes[os.stat(where).st_ino]
        if node in self.journal.folders:
            return
        content = Path(where).read_bytes()
        if content != self._contents[node]:
            self._contents[node] = content
            self.journal.steps.append(Wrote(node, content))

    def _below(self, path: object) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return os.fspath(path).startswith(f"{self._top}/")

    def _owns(self, descriptor: int) -> bool:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{self._top}/") or (
            os.fstat(descriptor).st_ino == os.stat(self._top).st_ino
        )

    def _alive(self) -> None:
        if self.dies_before is not None:
            if self.calls >= self.dies_before:
                raise PowerIsOff
            self.calls += 1

    def _enter(self, path: Path, node: int | None) -> None:
        owner = self._nodes[os.stat(path.parent).st_ino]
        self.journal.steps.append(Named(owner, path.name, node))

    def _open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if not self._below(path) or not flags & os.O_CREAT:
            return int(self._real["open"](path, flags, mode, **more))
        with self._lock:
            self._alive()
            new = not os.path.lexists(path)
            descriptor = int(self._real["open"](path, flags, mode, **more))
            if new:
                self._enter(Path(path), self._new_node(Path(path)))
            else:
                self._look(Path(path))
            return descriptor

    def _written(self, name: str, descriptor: int, *given: Any) -> int:
        with self._lock:
            ours = self._owns(descriptor)
            if ours:
                self._alive()
            written = int(self._real[name](descriptor, *given))
            if ours:
                self._look(descriptor)
            return written

    def _write(self, descriptor: int, data: Any) -> int:
        return self._written("write", descriptor, data)

    def _writev(self, descriptor: int, buffers: Any) -> int:
        return self._written("writev", descriptor, buffers)

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        return self._written("pwrite", descriptor, data, offset)

    def _fsync(self, descriptor: int) -> None:
        """Not done in earnest: nobody cuts the power here."""
        with self._lock:
            if self._owns(descriptor):
                self._alive()
                self._look(descriptor)
                self.journal.steps.append(Synced(self._nodes[os.fstat(descriptor).st_ino]))

    def _mkdir(self, path: Any, mode: int = 0o777, **more: Any) -> None:
        with self._lock:
            if self._below(path):
                self._alive()
            self._real["mkdir"](path, mode, **more)
            if self._below(path):
                node = self._new_node(Path(path))
                self.journal.folders.add(node)
                self._enter(Path(path), node)

    def _link(self, source: Any, target: Any, **more: Any) -> None:
        with self._lock:
            if self._below(target):
                self._alive()
                self._look(Path(source))
            self._real["link"](source, target, **more)
            if self._below(target):
                self._enter(Path(target), self._nodes[os.stat(target).st_ino])

    def _unlink(self, path: Any, **more: Any) -> None:
        with self._lock:
            if self._below(path):
                self._alive()
            self._real["unlink"](path, **more)
            if self._below(path):
                self._enter(Path(path), None)

    def _rename(self, source: Any, target: Any, **more: Any) -> None:
        with self._lock:
            if self._below(target):
                self._alive()
                self._look(Path(source))
            self._real["rename"](source, target, **more)
            if self._below(target):
                self._enter(Path(target), self._nodes[os.stat(target).st_ino])
                self._enter(Path(source), None)
