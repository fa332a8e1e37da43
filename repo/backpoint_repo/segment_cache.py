"""Decoded index segments in private local files, mapped: a big index then costs no memory.

Decides where the files lie, when one is believed, and which of them go. Whatever is in the way of a
file costs memory and time and is no failure. Knows neither the store nor what a table says.

A file is a print of 32 bytes, then the segment's plain payload. The print is BLAKE3 over name and
payload under a key that only holders of the repository secret can derive. So what a crash cut
short, what rotted, and what somebody else made is not believed and made again; 440 MB, ten million
chunks, take 0.1 s. Content ids and names of packs lie in the open here: who may read the files of
this user could as well read the credential. The folder has to be on a local disk: what another host
deletes, or a disk cannot read, ends the process that has it mapped.
"""

from __future__ import annotations

import hmac
import mmap
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from blake3 import blake3

from backpoint_repo.durable_file import UNFINISHED, write_durably
from backpoint_repo.errors import UsageError
from backpoint_repo.private_folder import make_private_folder

CACHE: Final = "BACKPOINT_CACHE"
FILE_FROM: Final = 64 << 10
"""Bytes of payload. Smaller segments are quickly read and merged in memory."""
_PRINT_SIZE: Final = 32
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_ABOVE: Final = 2
"""Folders above it that are ours too: of the repository, and of all repositories."""
_ABANDONED_S: Final = 86400.0
_FOR_ROOT: Final = Path("/var/cache")


@dataclass(frozen=True)
class CachePlace:
    """Under which folder this machine keeps such files, a folder for each repository in it.

    tell: called, once for a repository, with the reason why files cannot be kept.
    """

    root: Path
    tell: Callable[[str], None] = field(default=lambda _: None)

    def of(self, repository_id: bytes, address: str, meta_key: bytes) -> SegmentCache:
        """The files of one repository at one place: each of its replicas has segments of its own,
        and would drop those of the others."""
        place = blake3(address.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        folder = self.root / repository_id.hex() / f"index-{place}"
        return SegmentCache(folder, meta_key, self.tell)


def cache_place(
    environment: Mapping[str, str], tell: Callable[[str], None] = lambda _: None
) -> CachePlace | None:
    """BACKPOINT_CACHE, else `backpoint` in XDG_CACHE_HOME, in /var/cache for root, or in ~/.cache.

    None where nobody can say which home that is.
    """
    if given := environment.get(CACHE):
        return CachePlace(Path(given).absolute(), tell)
    if base := environment.get("XDG_CACHE_HOME"):
        return CachePlace(Path(base).absolute() / "backpoint", tell)
    if os.geteuid() == 0:
        return CachePlace(_FOR_ROOT / "backpoint", tell)
    try:
        return CachePlace(Path.home() / ".cache" / "backpoint", tell)
    except RuntimeError:
        return None


class SegmentCache:
    """Thread-safe; any number of processes may share a folder. It is made when first needed."""

    def __init__(
        self,
        folder: Path,
        meta_key: bytes,
        tell: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """clock: seconds since 1970, as files have them."""
        self._folder = folder
        self._key = blake3(b"index cache", key=meta_key).digest()
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._checked = False
        self._useless = False

    def find(self, name: str) -> memoryview | None:
        """The mapped payload of a segment, verified; None where there is none to be had."""
        if self._useless or not _NAME.fullmatch(name):
            return None
        try:
            return self._mapped(name) if self._ready(make=False) else None
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(f"{error.filename or self._folder}: {error.strerror}")
            return None

    def keep(self, name: str, payload: bytes) -> memoryview | None:
        """Write a segment's payload and map it; None where it is small or has no place."""
        if len(payload) < FILE_FROM or self._useless or not _NAME.fullmatch(name):
            return None
        try:
            if self._ready(make=True):
                write_durably(self._folder / name, self._print(name, payload) + payload)
                return self._mapped(name)
        except OSError as error:
            self._give_up(f"{error.filename or self._folder}: {error.strerror}")
        return None

    def names(self) -> set[str]:
        """Segments that have a file now."""
        try:
            return {name for name in os.listdir(self._folder) if _NAME.fullmatch(name)}
        except OSError:
            return set()

    def drop(self, names: Collection[str]) -> None:
        """Remove files of segments that are gone, and what a crash left behind. Those who have a
        file mapped keep it."""
        try:
            if not names or not self._ready(make=False):
                return
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            for path in self._folder.glob(f".*{UNFINISHED}"):
                if self._clock() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink(missing_ok=True)
        except OSError:
            return  # it will be tried again

    def _ready(self, *, make: bool) -> bool:
        """Whether the folder is there and ours alone. Raises OSError where it cannot be made."""
        with self._lock:
            if self._checked:
                return True
            if not make and not self._folder.exists():
                return False
            try:
                # Who could write to those above it could put a folder of theirs in its place.
                for folder in (*reversed(self._folder.parents[:_ABOVE]), self._folder):
                    make_private_folder(folder)
            except UsageError as error:
                self._give_up(str(error))
                return False
            self._checked = True
            return True

    def _mapped(self, name: str) -> memoryview | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._folder / name, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size <= _PRINT_SIZE:
                return None
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(mapping)
        payload = view[_PRINT_SIZE:]
        if not hmac.compare_digest(view[:_PRINT_SIZE], self._print(name, payload)):
            return None
        # What was read to verify it would count as this process's memory; it stays cached.
        mapping.madvise(mmap.MADV_DONTNEED)
        return payload

    def _print(self, name: str, payload: bytes | memoryview) -> bytes:
        summing = blake3(name.encode(), key=self._key, max_threads=blake3.AUTO)
        return summing.update(payload).digest()

    def _give_up(self, why: str) -> None:
        """Not again in this process: each attempt would write, and fail, megabytes."""
        if not self._useless:
            self._useless = True
            self._tell(f"the index is kept in memory, because its cache cannot be used: {why}")
