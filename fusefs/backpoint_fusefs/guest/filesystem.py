"""One contract over all guest filesystems: numbers in, stat, names, links and extents out.

Decides what a file is to everything above the parsers. A parser answers where a file's bytes lie on
its volume, and whoever holds the volume reads them there; only what must be decoded (compressed,
inline) is read through the parser itself. Knows no filesystem and no process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from backpoint_repo.errors import BackpointError


class GuestError(BackpointError):
    """A filesystem that cannot be read as it should; the message says what is wrong with it."""

    exit_code = 3


class GuestDamaged(GuestError):
    """The bytes contradict the format: damaged, cut off or forged."""


class GuestUnsupported(GuestError):
    """A feature that this reader does not know: to guess would show wrong content."""


class FileId(NamedTuple):
    """tree: the subvolume (btrfs), or the number of an alternate stream (NTFS); else 0.

    ino: the filesystem's own number of the file, 0 < ino < 2**39.
    """

    tree: int
    ino: int


class Stat(NamedTuple):
    """mode: with the file's type. size, allocated: bytes. Times: nanoseconds since 1970, UTC.

    rdev: of a device node, as `os.makedev` makes it.
    """

    tree: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    allocated: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int

    @property
    def file(self) -> FileId:
        """Which file this is."""
        return FileId(self.tree, self.ino)


class DirEntry(NamedTuple):
    """name: as the guest wrote it, in UTF-8 where the filesystem knows its encoding."""

    name: bytes
    file: FileId


HOLE: Final = -1
"""`Extent.at` of bytes that read as zeros."""
DECODED: Final = -2
"""`Extent.at` of bytes that only `GuestFilesystem.read` can give."""


class Extent(NamedTuple):
    """Bytes [offset, offset + length) of a file; at: where on the volume, or HOLE, or DECODED."""

    offset: int
    length: int
    at: int


@dataclass(frozen=True)
class VolumeFacts:
    """What a filesystem says of itself once it is open. recovery: a sentence where its journal
    holds changes that are not shown, else empty. replayed: blocks taken from the journal."""

    recovery: str = ""
    replayed: int = 0


class GuestFilesystem(Protocol):
    """A filesystem on one volume. Not thread-safe. Every call may raise GuestError; any other
    exception is a defect of the parser met by hostile bytes, and is treated as damage.

    Names of deleted files and the filesystem's own metafiles never appear.
    """

    root: FileId
    facts: VolumeFacts

    def stat(self, file: FileId) -> Stat: ...

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        """Of many at once, in their order; None for one that cannot be read."""
        ...

    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        """Without `.` and `..`."""
        ...

    def readlink(self, file: FileId) -> bytes: ...

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        """With their full names, values as the Linux kernel gives them to a program."""
        ...

    def extents(self, file: FileId) -> Iterable[Extent]:
        """Of a regular file: in order, without gaps or overlaps, together its whole size."""
        ...

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        """Of a regular file, whatever its extents are: fewer bytes only at its end."""
        ...

    def subvolumes(self) -> Mapping[bytes, FileId]:
        """Path from the top of the filesystem -> root of that subvolume; empty where it has no
        such thing. The top itself is b''."""
        ...


class VolumeImage(Protocol):
    """The bytes of a volume as a parser sees them."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly the bytes that were asked for, fewer only where the volume ends."""
        ...


def check_extents(extents: Iterable[Extent], size: int, volume_size: int) -> list[Extent]:
    """A copy that keeps its promises, neighbours joined. Raises GuestDamaged where it does not."""
    checked: list[Extent] = []
    end = 0
    for extent in extents:
        offset, length, at = extent
        beyond = at >= 0 and at > volume_size - length
        if offset != end or length <= 0 or at < DECODED or beyond:
            raise GuestDamaged(f"a file's extents are impossible at byte {offset}")
        end += length
        if checked:
            before = checked[-1]
            joined = before.at + before.length == at if at >= 0 else before.at == at
            if joined and (before.at >= 0) == (at >= 0):
                checked[-1] = before._replace(length=before.length + length)
                continue
        checked.append(extent)
    if end != size:
        raise GuestDamaged(f"a file of {size} bytes has extents for {end}")
    return checked
