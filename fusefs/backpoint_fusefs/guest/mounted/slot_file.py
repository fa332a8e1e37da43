"""The numbers of trees on disk, so that a restart of the mount gives every tree the number it had:
network clients keep them for weeks.

One small file for a repository and a user, shared by all of its mounts: lines are added under a
lock and never changed. Decides its place, its form and its size. Losing it, or a part of it, makes
old handles stale and nothing else; so no failure here is one for who reads a guest.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backpoint_fusefs.guest.mounted.tree_key import SLOTS, TreeKey

_FOR_ROOT: Final = Path("/var/lib")
SIZE_MAX: Final = 8 << 20
"""Bytes: 100,000 trees. A file that grows beyond is replaced by its newer half."""
_PLACE: Final = re.compile(r"root/[0-9]{1,6}|(?!root/).{1,1024}", re.DOTALL)
_TREE_END: Final = 1 << 63
_TRIES: Final = 50
_BETWEEN_TRIES_S: Final = 0.01
"""Whoever has the lock writes one line; the event loop does not wait for one who is stopped."""
_LOG = logging.getLogger("backpoint.mount")

Line = tuple[int, TreeKey]
"""A tree and its number."""


def slot_path(repository_id: bytes) -> Path:
    """In the user's state folder; in /var/lib for root, unless XDG_STATE_HOME says where."""
    state = os.environ.get("XDG_STATE_HOME")
    if not state and os.geteuid() == 0:
        folder = _FOR_ROOT
    else:
        folder = Path(state) if state else Path.home() / ".local/state"
    return folder / "backpoint" / "handles" / repository_id.hex()


class SlotFile:
    """For one thread. Methods raise nothing: what cannot be kept is said in the log, once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locked: int | None = None
        self._inode = 0
        self._offset = 0
        self._told = False

    def news(self) -> list[Line]:
        """Lines that were not read before, of whichever mount. What makes no sense is left out."""
        try:
            with contextlib.ExitStack() as stack:
                descriptor = self._locked
                if descriptor is None:
                    descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    stack.callback(os.close, descriptor)
                return self._read(descriptor)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._tell(error)
            return []

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """No other mount adds a line meanwhile."""
        try:
            self._locked = self._lock()
        except OSError as error:
            self._tell(error)
        try:
            yield
        finally:
            if self._locked is not None:
                os.close(self._locked)
                self._locked = None

    def add(self, slot: int, key: TreeKey) -> None:
        """Within a turn. Not synced: a power cut may cost the last seconds' handles."""
        if self._locked is None:
            return
        try:
            size = os.fstat(self._locked).st_size
            # What a crash left of a line must not spoil this one.
            whole = not size or os.pread(self._locked, 1, size - 1) == b"\n"
            line = json.dumps([slot, key.point_id.hex(), key.place, key.tree]).encode() + b"\n"
            os.write(self._locked, line if whole else b"\n" + line)
            if size > SIZE_MAX:
                self._shorten(self._locked)
        except OSError as error:
            self._tell(error)

    def _read(self, descriptor: int) -> list[Line]:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise PermissionError("it belongs to somebody else")
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._inode, self._offset = status.st_ino, max(0, status.st_size - 2 * SIZE_MAX)
        text = os.pread(descriptor, status.st_size - self._offset, self._offset)
        end = text.rfind(b"\n") + 1  # what is behind is being written
        self._offset += end
        return [line for raw in text[:end].splitlines() if (line := parse_line(raw)) is not None]

    def _lock(self) -> int:
        """A locked descriptor of the file that has the name now."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        for _ in range(_TRIES):
            descriptor = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == os.stat(self._path).st_ino:
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                time.sleep(_BETWEEN_TRIES_S)
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise TimeoutError("another mount holds it for long")

    def _shorten(self, descriptor: int) -> None:
        """Put the newer half in its place; who has the old one open finds the new one by name."""
        size = os.fstat(descriptor).st_size
        kept = os.pread(descriptor, size, size - SIZE_MAX // 2).partition(b"\n")[2]
        new = self._path.with_name(f"{self._path.name}.new")
        with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(kept)
        os.replace(new, self._path)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            why = error.strerror or error
            _LOG.warning(
                "handles of guest files may not outlive this mount: %s: %s", self._path, why
            )


def parse_line(raw: bytes) -> Line | None:
    """None for what no mount writes."""
    try:
        slot, point, place, tree = json.loads(raw)
        key = TreeKey(bytes.fromhex(point), place, tree)
    except (ValueError, TypeError, RecursionError):
        return None
    if type(slot) is not int or type(tree) is not int or type(place) is not str:
        return None
    numbers = 0 <= slot < SLOTS and 0 <= tree < _TREE_END
    possible = numbers and len(key.point_id) == 16 and _PLACE.fullmatch(place)
    return (slot, key) if possible else None
