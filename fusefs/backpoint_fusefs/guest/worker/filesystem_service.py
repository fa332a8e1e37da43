"""The requests about one filesystem, answered from its parser.

Decides the pages in which folders are listed and when a file's extents are too many to hand over.
Answers are plain values. Knows no frames and no process.
"""

from __future__ import annotations

import contextlib
import stat
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    Extent,
    FileId,
    GuestDamaged,
    GuestError,
    GuestFilesystem,
    Stat,
    VolumeImage,
    check_extents,
)
from backpoint_fusefs.guest.parsers.open_filesystem import OpenFilesystem
from backpoint_fusefs.guest.worker.folder_cache import FolderCache
from backpoint_fusefs.guest.worker.folder_parents import FolderParents
from backpoint_fusefs.guest.worker.frames import STAT

PAGE: Final = 2048
"""Entries of a folder in one answer."""
EXTENTS_MAX: Final = 200_000
"""Of one file; one in more pieces is read through its parser."""
XATTRS_MAX: Final = 8 << 20
"""Bytes of one file's attributes. Linux lets a program see 64 KiB of each."""


class FilesystemService:
    """Opens the filesystem when it is made. Raises GuestError."""

    def __init__(self, image: VolumeImage, open_filesystem: OpenFilesystem) -> None:
        self._image = image
        self._files: GuestFilesystem = open_filesystem(image)
        self._folders = FolderCache(self._files.entries)
        self._parents = FolderParents(self._files)

    def methods(self) -> dict[str, Callable[..., Any]]:
        """All requests by name."""
        requests = (
            *(self.opened, self.stat, self.lookup, self.page, self.readlink, self.xattrs),
            *(self.xattrs_of, self.extents, self.read, self.subvolumes, self.default_subvolume),
            self.parent,
        )
        return {request.__name__: request for request in requests}

    def opened(self) -> tuple[FileId, str, int]:
        """Root, recovery, replayed: see VolumeFacts."""
        facts = self._files.facts
        return self._files.root, facts.recovery, facts.replayed

    def stat(self, tree: int, ino: int) -> Sequence[object]:
        return _sendable(self._files.stat(FileId(tree, ino)))

    def lookup(self, tree: int, ino: int, name: bytes) -> Sequence[object] | None:
        """The stat of what a folder has under this name."""
        found = self._folders.folder(FileId(tree, ino)).find(name)
        return None if found is None else _sendable(self._files.stat(found))

    def page(self, tree: int, ino: int, number: int) -> tuple[bool, list[Any]]:
        """Whether there are more pages behind this one; of each entry its name, which file it is,
        and the file's stat, or None where that cannot be read."""
        entries = self._folders.folder(FileId(tree, ino)).entries
        shown = entries[number * PAGE : (number + 1) * PAGE]
        stats = self._files.stats([entry.file for entry in shown])
        lines = [
            (name, _packed(file, found)) for (name, file), found in zip(shown, stats, strict=True)
        ]
        return (number + 1) * PAGE < len(entries), lines

    def parent(self, tree: int, ino: int) -> tuple[FileId | None, bool]:
        """The folder that a folder lies in, or None; whether to ask again, for it takes long."""
        return self._parents.parent(FileId(tree, ino))

    def readlink(self, tree: int, ino: int) -> bytes:
        return self._files.readlink(FileId(tree, ino))

    def xattrs(self, tree: int, ino: int) -> dict[bytes, bytes]:
        found = dict(self._files.xattrs(FileId(tree, ino)))
        if sum(len(name) + len(value) for name, value in found.items()) > XATTRS_MAX:
            raise GuestDamaged("a file with more extended attributes than there can be")
        return self._readable(tree, ino, found)

    def _readable(self, tree: int, ino: int, found: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Linux lets nobody read `user.` attributes of links and devices, so none are listed."""
        if not any(name.startswith(b"user.") for name in found):
            return found
        kind = stat.S_IFMT(self._files.stat(FileId(tree, ino)).mode)
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            return found
        return {name: value for name, value in found.items() if not name.startswith(b"user.")}

    def xattrs_of(self, *files: tuple[int, int]) -> list[dict[bytes, bytes] | None]:
        """Of many files; None for one whose attributes cannot be read."""
        return [self._xattrs_or_none(*file) for file in files]

    def _xattrs_or_none(self, tree: int, ino: int) -> dict[bytes, bytes] | None:
        try:
            return self.xattrs(tree, ino)
        except GuestError:
            return None

    def extents(self, tree: int, ino: int) -> bytes:
        """Offset, length and place of each, as 64-bit numbers of this machine."""
        found = self._files.stat(FileId(tree, ino))
        if not stat.S_ISREG(found.mode):
            raise GuestDamaged("only regular files have extents")
        checked = check_extents(self._files.extents(found.file), found.size, self._image.size)
        if len(checked) > EXTENTS_MAX:
            checked = [Extent(0, found.size, DECODED)]
        return array("q", [number for extent in checked for number in extent]).tobytes()

    def size(self, file: FileId) -> int:
        """Bytes; no request of its own."""
        return self._files.stat(file).size

    def read(self, tree: int, ino: int, offset: int, length: int) -> bytes:
        return self._files.read(FileId(tree, ino), offset, length)

    def subvolumes(self) -> dict[bytes, FileId]:
        return dict(self._files.subvolumes())

    def default_subvolume(self) -> FileId:
        """What is mounted where nobody names a subvolume; the root where there are none."""
        found: FileId = getattr(self._files, "default_subvolume", self._files.root)
        return found


def _packed(file: FileId, found: Stat | None) -> bytes | tuple[FileId, object]:
    """As `parser_answers.read_line` wants it."""
    if found is not None:
        with contextlib.suppress(struct.error):
            return STAT.pack(*found)
        with contextlib.suppress(GuestDamaged):
            return file, _sendable(found)
    return file, None


def _sendable(found: Stat) -> Sequence[object]:
    """Times that no message can hold go as seconds and nanoseconds: NTFS begins in 1601, and btrfs
    ends after the stars. Raises GuestDamaged for other numbers that are too large."""
    with contextlib.suppress(struct.error):
        STAT.pack(*found)
        return found
    times = (found.atime_ns, found.mtime_ns, found.ctime_ns)
    try:
        STAT.pack(*found._replace(atime_ns=0, mtime_ns=0, ctime_ns=0))
    except struct.error as error:
        raise GuestDamaged(f"the file {found.ino} has impossible numbers") from error
    return (*found[:8], *(divmod(at, 10**9) for at in times), found.rdev)
