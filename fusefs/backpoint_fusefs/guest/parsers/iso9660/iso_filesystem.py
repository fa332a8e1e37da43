"""ISO 9660 as a guest filesystem. Files are numbered by where their records lie.

Decides what a file without Rock Ridge's metadata is: 0755 or 0644 of root.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import (
    DirEntry,
    Extent,
    FileId,
    GuestDamaged,
    GuestUnsupported,
    Stat,
    VolumeFacts,
    VolumeImage,
    check_extents,
)
from backpoint_fusefs.guest.parsers.iso9660.directory_record import (
    DirectoryRecord,
    read_record,
)
from backpoint_fusefs.guest.parsers.iso9660.iso_time import short_time_ns
from backpoint_fusefs.guest.parsers.iso9660.rock_ridge import (
    RockRidge,
    plain_mode,
    read_rock_ridge,
    uses_rock_ridge,
)
from backpoint_fusefs.guest.parsers.iso9660.volume_descriptor import SECTOR, read_descriptors
from backpoint_fusefs.guest.parsers.recent import Recent
from backpoint_fusefs.guest.parsers.run_bytes import RunBytes
from backpoint_fusefs.guest.parsers.single_stats import single_stats

_READ_MAX: Final = 1 << 20
_FOLDER_MAX: Final = 1 << 26
_SECTIONS_MAX: Final = 4096
_SYSTEM_USE_MAX: Final = 1 << 14
# Records begin at even places, so half of a place is a number.
_STEP: Final = 2
_KEPT_MAX: Final = 64
# PX has 32 bits for it, of which POSIX means 16.
_MODE_MASK: Final = 0xFFFF
_NO_ROCK_RIDGE: Final = RockRidge()


class IsoFile(NamedTuple):
    """sections: (block, bytes) of a file's content, in order. size: of all of them."""

    record: DirectoryRecord
    rock_ridge: RockRidge
    sections: list[tuple[int, int]]
    size: int


class IsoFilesystem:
    def __init__(self, image: VolumeImage) -> None:
        primary, joliet = read_descriptors(image)
        self.facts = VolumeFacts()
        self._image = image
        self._windows: Recent[int, bytes] = Recent(_KEPT_MAX)
        self._block = primary.block
        own = read_record(self._sector(primary.root_at), 0)
        self._skip = uses_rock_ridge(own.system_use)
        chosen = joliet if joliet and self._skip is None else primary
        self._joliet = chosen.joliet
        self._block = chosen.block
        self._root_at = chosen.root_at
        self.root = FileId(0, chosen.root_at // _STEP)
        if not stat.S_ISDIR(self.stat(self.root).mode):
            raise GuestDamaged("the disc's root is no folder")

    def stat(self, file: FileId) -> Stat:
        found = self._file(file.ino)
        record, rock_ridge = found.record, found.rock_ridge
        plain = plain_mode(directory=record.directory)
        mode = plain if rock_ridge.mode is None else rock_ridge.mode & _MODE_MASK
        if stat.S_IFMT(mode) != stat.S_IFDIR and record.directory:
            mode = plain
        written = short_time_ns(record.date)
        mtime = written if rock_ridge.mtime_ns is None else rock_ridge.mtime_ns
        atime = mtime if rock_ridge.atime_ns is None else rock_ridge.atime_ns
        ctime = mtime if rock_ridge.ctime_ns is None else rock_ridge.ctime_ns
        content = found.size if rock_ridge.unpacked is None else rock_ridge.unpacked
        size = len(rock_ridge.target) if stat.S_ISLNK(mode) else content
        allocated = -(-found.size // SECTOR) * SECTOR
        rdev = rock_ridge.rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0
        owner = (rock_ridge.nlink, rock_ridge.uid, rock_ridge.gid)
        return Stat(0, file.ino, mode, *owner, size, allocated, atime, mtime, ctime, rdev)

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        return single_stats(self.stat, files)

    def entries(self, folder: FileId) -> Iterator[DirEntry]:
        """A file of several extents has as many records; the first one stands for it."""
        continued = False
        for at, record in self._records(folder):
            first, continued = not continued, record.more_extents
            if record.own or record.associated or not first:
                continue
            rock_ridge = self._rock_ridge(record, own=False)
            if rock_ridge.moved:
                continue
            number = at if rock_ridge.child is None else rock_ridge.child * self._block
            name = rock_ridge.name or self._plain_name(record.name)
            if b"/" in name or b"\0" in name or name in (b"", b".", b".."):
                raise GuestDamaged(f"a file is named {name!r}, which nothing can be")
            yield DirEntry(name, FileId(0, number // _STEP))

    def readlink(self, file: FileId) -> bytes:
        if target := self._file(file.ino).rock_ridge.target:
            return target
        raise GuestDamaged(f"file {file.ino} is no link")

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        return {}

    def extents(self, file: FileId) -> Sequence[Extent]:
        found = self._file(file.ino)
        if found.rock_ridge.unpacked is not None:
            raise GuestUnsupported("a file is compressed by zisofs")
        if found.record.interleaved:
            raise GuestUnsupported("a file's content is interleaved with another's")
        extents = []
        offset = 0
        for block, length in found.sections:
            if length:
                extents.append(Extent(offset, length, block * self._block))
            offset += length
        return check_extents(extents, found.size, self._image.size)

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        return RunBytes(self._image, self.extents(file)).read_some(offset, length)

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return {}

    def _records(self, folder: FileId) -> Iterator[tuple[int, DirectoryRecord]]:
        """(where it lies, the record) of a folder; none crosses the end of a sector."""
        found = self._file(folder.ino)
        start, size = found.record.block * self._block, found.size
        if not found.record.directory or size > _FOLDER_MAX or start + size > self._image.size:
            raise GuestDamaged(f"file {folder.ino} is no folder, or one of {size} bytes")
        for window in range(start, start + size, _READ_MAX):
            data = self._image.read(window, min(_READ_MAX, start + size - window))
            at = 0
            while at < len(data):
                if data[at] == 0:
                    at += SECTOR - at % SECTOR
                    continue
                record = read_record(data, at)
                yield window + at, record
                at += record.length

    def _file(self, number: int) -> IsoFile:
        at = number * _STEP
        record = self._record(at)
        own = record.name == b"\x00"
        rock_ridge = self._rock_ridge(record, own=at == self._root_at)
        sections = [(record.block, record.size)]
        last = record
        while last.more_extents and not own:
            at = self._following(at, last)
            last = self._record(at)
            sections.append((last.block, last.size))
            if len(sections) > _SECTIONS_MAX or last.name != record.name:
                raise GuestDamaged(f"the parts of file {number} do not end")
        return IsoFile(record, rock_ridge, sections, sum(size for _, size in sections))

    def _record(self, at: int) -> DirectoryRecord:
        return read_record(self._sector(at), at % SECTOR)

    def _following(self, at: int, record: DirectoryRecord) -> int:
        at += record.length
        rest = self._sector(at)[at % SECTOR :] if at % SECTOR else b"\1"
        return at if rest[0] else at + SECTOR - at % SECTOR

    def _sector(self, at: int) -> bytes:
        """The sector that holds this byte, out of a window that is kept."""
        start = at - at % _READ_SECTORS
        window = self._windows.get(start, lambda: self._image.read(start, _READ_SECTORS))
        sector = at - at % SECTOR - start
        return window[sector : sector + SECTOR]

    def _rock_ridge(self, record: DirectoryRecord, *, own: bool) -> RockRidge:
        if self._skip is None:
            return _NO_ROCK_RIDGE
        use = record.system_use if own else record.system_use[self._skip :]
        return read_rock_ridge(use, self._continued)

    def _continued(self, block: int, offset: int, length: int) -> bytes:
        if length > _SYSTEM_USE_MAX:
            raise GuestDamaged(f"Rock Ridge fields of {length} bytes")
        at = block * self._block + offset
        sector = self._sector(at)[at % SECTOR :]
        return sector[:length] if length <= len(sector) else self._image.read(at, length)

    def _plain_name(self, name: bytes) -> bytes:
        """Without the version, which nobody sees."""
        if self._joliet:
            name = name.decode("utf-16-be", "surrogatepass").encode("utf-8", "surrogatepass")
        name, _, _ = name.partition(b";")
        return name if self._joliet else name.removesuffix(b".")


_READ_SECTORS: Final = 32 * SECTOR
