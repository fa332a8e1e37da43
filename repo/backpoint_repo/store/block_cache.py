"""Blocks of a store's objects in private local files: what was fetched once need not be again.

Decides where files lie, how many bytes they may take up, which of them go, and that nothing here is
ever a failure: what cannot be kept or found costs time. Knows neither the store nor what its
objects mean; what makes a file believed is in `block_file.py`.

Several processes share a folder. Who writes holds the lock of the file `held`, which says how many
bytes are taken up; it never says too few, so that the limit holds at every moment. What a crash
leaves is counted, and goes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from blake3 import blake3

from backpoint_repo.durable_file import UNFINISHED
from backpoint_repo.errors import UsageError
from backpoint_repo.private_folder import PRIVATE, make_private_folder
from backpoint_repo.store.block_eviction import CacheFile, plan_eviction, size_on_disk
from backpoint_repo.store.block_file import (
    FILE_SIZE_MAX,
    PRINT_SIZE,
    Block,
    NotBelieved,
    Part,
    encode_block,
    open_block,
    read_block,
)
from backpoint_repo.store.direct_writer import DirectWriter
from backpoint_repo.store.held_bytes import (
    PATIENCE_S,
    Busy,
    HeldBytes,
    held_bytes,
    read_held,
)

DATA: Final = "data"
LASTING: Final = "meta"
_TAIL: Final = "tail"
_NAME: Final = re.compile(r"[0-9a-f]{32}-([0-9a-f]{1,8}|tail)")
_HELD: Final = "held"
_ABOVE: Final = 2
"""Folders above it that are ours too: of the repository, and the one that was named."""
_TOUCHED_S: Final = 60.0
_STALE_S: Final = 30 * 86400.0
"""Metadata that nobody used for so long is of points that were pruned, or of no use here."""
_REST_S: Final = 60.0
"""Before a disk that is full, or fails, is asked again."""
_DONE: Final = {"read": "read", "write": "written"}
_OF_ONE_FILE: Final = (errno.ELOOP, errno.EIO)


class BlockCache:
    """Thread-safe; any number of processes may share a folder. It is made when first needed."""

    def __init__(
        self,
        folder: Path,
        meta_key: bytes,
        limit: int,
        tell: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """limit: bytes of disk. tell: called once for each thing that is wrong. clock: seconds
        since 1970, as files have them."""
        self._folder = folder
        self._key = blake3(b"block cache", key=meta_key).digest()
        self._limit = limit
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._writer = DirectWriter(FILE_SIZE_MAX)
        self._rests_until = {"read": 0.0, "write": 0.0}
        self.dropped = 0

    def make(self) -> None:
        """Make the folders, or check those there are. Raises UsageError where they are not ours
        alone, OSError."""
        # Who could write to those above it could put a folder of theirs in its place.
        for folder in (*reversed(self._folder.parents[:_ABOVE]), self._folder):
            make_private_folder(folder)
        for name in (DATA, LASTING):
            (self._folder / name).mkdir(mode=PRIVATE, exist_ok=True)

    def find(self, key: str, number: int, start: int, stop: int, *, lasting: bool) -> Part | None:
        """Bytes of a block from `start` up to `stop`, verified; None where they are not here.

        An empty one with `last` where the object is known to end before this block. lasting: it is
        kept with metadata. The last block may be in either place.
        """
        place = LASTING if lasting else DATA
        whose = self._print(key)
        if (part := self._find(place, whose, number, start, stop)) is not None:
            return part
        for place in (LASTING, DATA):
            part = self._find(place, whose, None, start, stop)
            if part is not None and part.number <= number:
                return part if part.number == number else Part(b"", number, 0, last=True)
        return None

    def find_tail(self, key: str, stop: int) -> Part | None:
        """The first `stop` bytes of the object's last block, which tells how long the object is."""
        whose = self._print(key)
        part = self._find(LASTING, whose, None, 0, stop)
        return part or self._find(DATA, whose, None, 0, stop)

    def keep(self, key: str, first: int, blocks: Sequence[Block], *, lasting: bool) -> None:
        """Neighbouring blocks from number `first`. What has no room now is not kept."""
        if self._rests("write"):
            return
        whose, place = self._print(key), LASTING if lasting else DATA
        files = []
        for number, block in enumerate(blocks, first):
            ending = _TAIL if block.last else f"{number:x}"
            files.append((f"{whose.hex()}-{ending}", number, block))
        try:
            with self._writing() as held:
                for name, number, block in files:
                    parts = encode_block(self._key, whose, number, block)
                    need = size_on_disk(sum(map(len, parts)))
                    if not held.room_for(need):
                        return
                    self._write(self._folder / place / name, parts)
        except Busy:
            return
        except FileNotFoundError:
            self._make_again()
        except OSError as error:
            self._rest("write", error)

    def lose(self, key: str) -> bool:
        """Drop whatever is here of an object: it is gone from the store, or was not good. False
        where there was nothing."""
        start, lost = self._print(key).hex(), False
        with contextlib.suppress(OSError):
            for place in (DATA, LASTING):
                for name in os.listdir(self._folder / place):
                    if name.startswith(start):
                        os.unlink(self._folder / place / name)
                        lost = True
        return lost

    def held(self) -> int:
        """Bytes that files take up, or a little more than they do."""
        return read_held(self._folder / _HELD) or 0

    def _find(
        self, place: str, whose: bytes, number: int | None, start: int, stop: int
    ) -> Part | None:
        if self._rests("read"):
            return None
        ending = _TAIL if number is None else f"{number:x}"
        path = f"{self._folder}/{place}/{whose.hex()}-{ending}"
        try:
            descriptor = open_block(path)
            try:
                part = read_block(descriptor, self._key, whose, number, start, stop)
                self._touch(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except NotBelieved as error:
            self._drop(path, str(error))
            return None
        except OSError as error:
            if error.errno in _OF_ONE_FILE:
                self._drop(path, str(error.strerror))
            if error.errno != errno.ELOOP:
                self._rest("read", error)
            return None
        return part

    def _touch(self, descriptor: int) -> None:
        """So that it goes late. Not at each use: that would be a write to the disk."""
        now = self._clock()
        if abs(now - os.fstat(descriptor).st_mtime) > _TOUCHED_S:
            with contextlib.suppress(OSError):  # read-only
                os.utime(descriptor, (now, now))

    def _drop(self, path: str, why: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)
        self.dropped += 1
        self._tell_once("drop", f"{path}: {why}; what the cache has wrong is fetched again")

    def _write(self, path: Path, parts: Sequence[bytes | memoryview]) -> None:
        """Not made durable: what a crash tears is not believed."""
        unfinished = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
        try:
            self._writer.write(unfinished, parts, self._clock())
            os.rename(unfinished, path)
        except BaseException:  # of whatever kind: it must not stay
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[HeldBytes]:
        """The only one who writes, among threads and processes. Raises Busy, OSError."""
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise Busy
        try:
            with held_bytes(self._folder / _HELD, self._limit, self._clean) as held:
                yield held
        finally:
            self._lock.release()

    def _clean(self, wanted: int) -> int:
        """Free so many bytes; returns how many are taken up then."""
        plan = plan_eviction(self._files(), wanted)
        held = plan.held
        for file in plan.victims:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.path)
            held -= file.size
        return held

    def _files(self) -> Iterator[CacheFile]:
        """All of ours. What crashes left is removed: nobody else writes now."""
        now = self._clock()
        for place in (DATA, LASTING):
            with os.scandir(self._folder / place) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        if entry.name.endswith(UNFINISHED):
                            os.unlink(entry.path)
                        elif _NAME.fullmatch(entry.name):
                            found = entry.stat(follow_symlinks=False)
                            size = size_on_disk(found.st_size)
                            used = found.st_mtime
                            lasting = place == LASTING and now - used < _STALE_S
                            yield CacheFile(entry.path, size, used, lasting)

    def _make_again(self) -> None:
        """Somebody removed the folders; the next block will find them."""
        try:
            self.make()
        except OSError as error:
            self._rest("write", error)
        except UsageError as error:
            self._tell_once("folder", f"the cache cannot be used: {error}")
            self._rests_until["write"] = self._clock() + _REST_S

    def _rests(self, what: str) -> bool:
        until = self._rests_until[what]
        return until > 0 and until - _REST_S <= self._clock() < until

    def _rest(self, what: str, error: OSError) -> None:
        self._rests_until[what] = self._clock() + _REST_S
        why = f"{error.filename or self._folder}: {error.strerror}"
        self._tell_once(what, f"the cache cannot be {_DONE[what]} now, which costs time: {why}")

    def _tell_once(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._tell(message)

    def _print(self, key: str) -> bytes:
        return blake3(b"name\0" + key.encode(), key=self._key).digest(PRINT_SIZE)
