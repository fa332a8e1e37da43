"""Everything a mount could ask of a parser, over a hostile image, with an end.

Decides what a parser must keep to even then: each file may be refused, but nothing may be endless,
nor of a form that the contract (guest/filesystem.py) rules out. Says what happened; judges nothing.
"""

from __future__ import annotations

import stat
import time
import traceback
from collections.abc import Callable
from itertools import islice
from typing import Final, TypeVar

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    DirEntry,
    FileId,
    GuestError,
    GuestFilesystem,
    Stat,
    VolumeImage,
    check_extents,
)

# A small image cannot hold more than these honestly.
ENTRIES_MAX: Final = 100_000
EXTENTS_MAX: Final = 1_000_000
FILES_MAX: Final = 20_000
_PIECE: Final = 64 << 10
_SLOW_S: Final = 2.0
_INO_END: Final = 1 << 39
# What msgpack can carry.
_NUMBERS: Final = range(-(1 << 63), 1 << 64)

T = TypeVar("T")


class BoundedWalk:
    """What was found in the walk. refused: of files, by GuestError; the others are faults of the
    parser: other exceptions (`defects`), what the contract forbids (`broken`), what takes more than
    2 s of CPU (`slow`). odd: numbers beyond those of the contract, a root that is no folder; what
    asks a parser checks for these. seen: files looked at."""

    def __init__(self, image: VolumeImage) -> None:
        self._image = image
        self.seen = 0
        self.refused: list[str] = []
        self.defects: list[str] = []
        self.broken: list[str] = []
        self.slow: list[str] = []
        self.odd: list[str] = []

    def run(self, open_filesystem: Callable[[VolumeImage], GuestFilesystem], read: bool) -> None:
        """read: contents too, in part."""
        filesystem = self._try("open", lambda: open_filesystem(self._image))
        if filesystem is None:
            return
        roots = self._try("subvolumes", lambda: dict(filesystem.subvolumes())) or {}
        waiting = [filesystem.root, *islice(roots.values(), 1000)]
        done = set(waiting)
        while waiting and self.seen < FILES_MAX:
            file = waiting.pop()
            self.seen += 1
            found = self._try("stat", lambda file=file: filesystem.stat(file))  # type: ignore[misc]
            if found is None:
                continue
            self._judge_stat(found)
            if file == filesystem.root and not stat.S_ISDIR(found.mode):
                self.odd.append(f"the root is no folder: {found}")
            self._attributes(filesystem, file, found)
            if stat.S_ISDIR(found.mode):
                below = [entry.file for entry in self._list(filesystem, file)]
                waiting += [child for child in dict.fromkeys(below) if child not in done]
                done.update(below)
            elif stat.S_ISREG(found.mode):
                self._content(filesystem, found, read)

    def outcome(self) -> str:
        """The worst of it, in a line."""
        for word, found in (
            ("broken promise", self.broken),
            ("defect", self.defects),
            ("slow", self.slow),
            ("odd", self.odd),
            ("refused", self.refused),
        ):
            if found:
                return f"{word}: {len(found)} of {self.seen} files: {found[0]}"
        return f"clean: {self.seen} files"

    def _list(self, filesystem: GuestFilesystem, folder: FileId) -> list[DirEntry]:
        entries = self._try(
            "entries", lambda: list(islice(filesystem.entries(folder), ENTRIES_MAX + 1))
        )
        if not entries:
            return []
        if len(entries) > ENTRIES_MAX:
            self.broken.append(f"a folder of more than {ENTRIES_MAX} entries: {folder}")
        for name, file in entries:
            if not name or b"\0" in name or name in (b".", b".."):
                self.broken.append(f"an impossible name: {name[:40]!r}")
            if not 0 < file.ino < _INO_END or file.tree not in _NUMBERS:
                self.odd.append(f"an impossible number: {file}")
        files = [entry.file for entry in entries]
        stats = self._try("stats", lambda: filesystem.stats(files))
        if stats is not None and len(stats) != len(files):
            self.broken.append(f"{len(stats)} stats of {len(files)} files")
        return entries

    def _judge_stat(self, found: Stat) -> None:
        if not all(value in _NUMBERS for value in found):
            self.odd.append(f"more than 64 bits: {found}")
        elif found.size < 0 or found.allocated < 0 or found.nlink < 0 or found.mode >> 16:
            self.odd.append(f"an impossible stat: {found}")

    def _attributes(self, filesystem: GuestFilesystem, file: FileId, found: Stat) -> None:
        self._try("xattrs", lambda: dict(filesystem.xattrs(file)))
        if stat.S_ISLNK(found.mode):
            self._try("readlink", lambda: filesystem.readlink(file))

    def _content(self, filesystem: GuestFilesystem, found: Stat, read: bool) -> None:
        extents = self._try(
            "extents", lambda: list(islice(filesystem.extents(found.file), EXTENTS_MAX + 1))
        )
        if extents is None:
            return
        if len(extents) > EXTENTS_MAX:
            self.broken.append(f"more than {EXTENTS_MAX} extents of {found}")
            return
        if self._try("extents", lambda: check_extents(extents, found.size, self._image.size)):
            decoded = [extent.offset for extent in extents if extent.at == DECODED][:3]
            for at in {0, found.size // 2, max(0, found.size - 100), *decoded} if read else ():
                self._read(filesystem, found, at)

    def _read(self, filesystem: GuestFilesystem, found: Stat, at: int) -> None:
        piece = self._try("read", lambda: filesystem.read(found.file, at, _PIECE))
        if piece is not None and len(piece) != max(0, min(_PIECE, found.size - at)):
            self.broken.append(f"{len(piece)} bytes read at {at} of {found}")

    def _try(self, what: str, ask: Callable[[], T]) -> T | None:
        begin = time.process_time()
        try:
            return ask()
        except GuestError as error:
            self.refused.append(f"{what}: {error}")
        except MemoryError:
            raise
        except Exception as error:  # what they are is the very question
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
            self.defects.append(f"{what}: {type(error).__name__} in {where}: {str(error)[:80]}")
        finally:
            took = time.process_time() - begin
            if took > _SLOW_S:
                self.slow.append(f"{what} took {took:.1f} s")
        return None
