"""FAT and exFAT as a guest filesystem. Files are numbered by where their folder entries lie.

Decides the modes: there are none, so folders are 0755 and files 0644 of root, without the write
bits where DOS says read-only. Change times are those of modification.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from backpoint_fusefs.guest.filesystem import (
    HOLE,
    DirEntry,
    Extent,
    FileId,
    GuestDamaged,
    Stat,
    VolumeFacts,
    VolumeImage,
    check_extents,
)
from backpoint_fusefs.guest.parsers.fat.dos_folder import DosFolder
from backpoint_fusefs.guest.parsers.fat.exfat_folder import ExfatFolder
from backpoint_fusefs.guest.parsers.fat.fat_file import (
    DIRECTORY,
    READ_ONLY,
    FatFile,
    FolderFormat,
    FolderPiece,
)
from backpoint_fusefs.guest.parsers.fat.fat_layout import (
    FatLayout,
    read_dos_layout,
    read_exfat_layout,
)
from backpoint_fusefs.guest.parsers.fat.fat_table import FatTable
from backpoint_fusefs.guest.parsers.recent import Recent
from backpoint_fusefs.guest.parsers.run_bytes import RunBytes

_ENTRY: Final = 32
# A number is an entry's place in units of its size; the first ones lie in the boot sector.
_ROOT: Final = 1
_READ_MAX: Final = 1 << 20
_GAP_MAX: Final = 1 << 16
_EXTENTS_KEPT: Final = 1 << 18
_DIRTY: Final = "the volume was not unmounted: its last changes may be incomplete"


def open_dos(image: VolumeImage) -> FatFilesystem:
    layout = read_dos_layout(image)
    table = FatTable(image, layout)
    return FatFilesystem(image, layout, table, DosFolder(fat32=layout.bits == 28))


def open_exfat(image: VolumeImage) -> FatFilesystem:
    layout = read_exfat_layout(image)
    table = FatTable(image, layout)

    def following(at: int) -> list[int]:
        filled = (at - layout.heap_at) % layout.cluster
        if filled:
            return [at]
        chained = table.following((at - layout.heap_at) // layout.cluster + 1)
        return [at, layout.heap_at + (chained - 2) * layout.cluster]

    return FatFilesystem(image, layout, table, ExfatFolder(image.read, following))


class FatFilesystem:
    def __init__(
        self, image: VolumeImage, layout: FatLayout, table: FatTable, folders: FolderFormat
    ) -> None:
        self.root = FileId(0, _ROOT)
        self.facts = VolumeFacts(recovery=_DIRTY if layout.dirty else "")
        self._image = image
        self._layout = layout
        self._table = table
        self._folders = folders
        self._mapped: Recent[FileId, list[Extent]] = Recent(
            _EXTENTS_KEPT, lambda extents: len(extents) + 8
        )

    def stat(self, file: FileId) -> Stat:
        return self._stat(file.ino, self._file(file))

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        found: dict[int, Stat] = {}
        for batch in _batches(sorted({file.ino for file in files})):
            first = batch[0] * _ENTRY
            data = self._image.read(first, batch[-1] * _ENTRY + 2 * _ENTRY - first)
            for number in batch:
                try:
                    found[number] = self._stat(number, self._parse(number, data, first))
                except GuestDamaged:
                    continue
        return [found.get(file.ino) for file in files]

    def entries(self, folder: FileId) -> Iterator[DirEntry]:
        for name, at in self._folders.names(self._pieces(folder)):
            yield DirEntry(name, FileId(0, at // _ENTRY))

    def readlink(self, file: FileId) -> bytes:
        raise GuestDamaged("FAT has no links")

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        return {}

    def extents(self, file: FileId) -> Sequence[Extent]:
        return self._mapped.get(file, lambda: self._map(file))

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        return RunBytes(self._image, self.extents(file)).read_some(offset, length)

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return {}

    def _file(self, file: FileId) -> FatFile:
        at = file.ino * _ENTRY
        return self._parse(file.ino, self._image.read(at, 2 * _ENTRY), at)

    def _parse(self, number: int, data: bytes, first: int) -> FatFile:
        """data: of the volume from `first` on."""
        if number == _ROOT:
            return FatFile(DIRECTORY, 0, 0, self._layout.root, False, 0, 0)
        start = number * _ENTRY - first
        if number * _ENTRY < self._layout.heap_at - self._layout.root_size or (
            start + _ENTRY > len(data)
        ):
            raise GuestDamaged(f"there is no file at byte {number * _ENTRY}")
        return self._folders.file(data, start, number * _ENTRY)

    def _stat(self, number: int, file: FatFile) -> Stat:
        if file.directory:
            mode, size = stat.S_IFDIR | 0o755, file.size or self._layout.cluster
        else:
            mode = stat.S_IFREG | (0o444 if file.attributes & READ_ONLY else 0o644)
            size = file.size
        cluster = self._layout.cluster
        allocated = -(-size // cluster) * cluster
        atime, mtime = file.atime_ns, file.mtime_ns
        return Stat(0, number, mode, 1, 0, 0, size, allocated, atime, mtime, mtime, 0)

    def _map(self, file: FileId) -> list[Extent]:
        found = self._file(file)
        if found.directory:
            raise GuestDamaged(f"file {file.ino} is a folder")
        if not found.size:
            return []
        if found.contiguous:
            extents = self._table.contiguous(found.first, found.valid)
        else:
            extents = self._table.chain(found.first, found.valid)
        if found.valid < found.size:
            extents = [*extents, Extent(found.valid, found.size - found.valid, HOLE)]
        return check_extents(extents, found.size, self._image.size)

    def _pieces(self, folder: FileId) -> Iterator[FolderPiece]:
        for _, length, at in self._folder_extents(folder):
            for start in range(0, length, _READ_MAX):
                piece = min(_READ_MAX, length - start)
                yield FolderPiece(at + start, self._image.read(at + start, piece))

    def _folder_extents(self, folder: FileId) -> list[Extent]:
        found = self._file(folder)
        most = self._folders.folder_size_max
        if not found.directory:
            raise GuestDamaged(f"file {folder.ino} is no folder")
        if folder.ino == _ROOT and self._layout.root_size:
            return [Extent(0, self._layout.root_size, self._layout.root_at)]
        if found.contiguous:
            if found.size > most:
                raise GuestDamaged(f"a folder of {found.size} bytes")
            return self._table.contiguous(found.first, found.size)
        # An empty exFAT folder may have no cluster at all.
        return self._table.whole_chain(found.first, most) if found.first else []


def _batches(numbers: list[int]) -> Iterator[list[int]]:
    """Sorted entries that are near enough to be read at once."""
    batch: list[int] = []
    for number in numbers:
        if batch and (
            (number - batch[-1]) * _ENTRY > _GAP_MAX or (number - batch[0]) * _ENTRY > _READ_MAX
        ):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
