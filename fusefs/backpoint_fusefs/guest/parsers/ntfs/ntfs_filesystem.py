"""NTFS as a guest filesystem: numbers in, what the other files here know of them out.

Decides what is shown of alternate streams: up to 64 KiB as `user.` attributes (as ntfs-3g does with
streams_interface=xattr); larger ones, where asked for, as files `name:stream` beside their file.
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
    GuestUnsupported,
    Stat,
    VolumeFacts,
    VolumeImage,
    check_extents,
)
from backpoint_fusefs.guest.parsers.ntfs.attribute import DATA, FILE_NAME, Attribute
from backpoint_fusefs.guest.parsers.ntfs.cleanliness import (
    LOG_RECORD,
    VOLUME_RECORD,
    recovery_note,
)
from backpoint_fusefs.guest.parsers.ntfs.compressed import CompressedReader
from backpoint_fusefs.guest.parsers.ntfs.content import data_extents
from backpoint_fusefs.guest.parsers.ntfs.file_stat import (
    file_nature,
    file_stat,
    stream_stat,
)
from backpoint_fusefs.guest.parsers.ntfs.folder_index import folder_entries
from backpoint_fusefs.guest.parsers.ntfs.geometry import read_geometry
from backpoint_fusefs.guest.parsers.ntfs.mft import FileRecord, MasterFileTable
from backpoint_fusefs.guest.parsers.ntfs.ntfs_file import NtfsFile, open_file
from backpoint_fusefs.guest.parsers.ntfs.plain_stat import plain_stat
from backpoint_fusefs.guest.parsers.recent import Recent
from backpoint_fusefs.guest.parsers.run_bytes import RunBytes
from backpoint_fusefs.guest.parsers.utf16_name import name_bytes

_ROOT: Final = 5
# Below are NTFS's own files, and numbers kept for more of them.
_FIRST_FILE: Final = 24
_ATTRIBUTES_KEPT: Final = 1 << 13
_EXTENTS_KEPT: Final = 1 << 18
_SEQUENCES_MAX: Final = 1 << 20
_XATTR_MAX: Final = 1 << 16
_XATTRS_MAX: Final = 1 << 20
_NO_DATA: Final = Attribute(DATA, b"", 0, 0, b"", 0, 0)


class NtfsFilesystem:
    def __init__(self, image: VolumeImage, *, streams: bool) -> None:
        self.root = FileId(0, _ROOT)
        self._image = image
        self._streams = streams
        self._geometry = read_geometry(image)
        self._table = MasterFileTable(image, self._geometry)
        self._compressed = CompressedReader(image)
        self._open: Recent[int, NtfsFile] = Recent(
            _ATTRIBUTES_KEPT, lambda file: len(file.attributes)
        )
        self._mapped: Recent[FileId, list[Extent]] = Recent(
            _EXTENTS_KEPT, lambda extents: len(extents) + 8
        )
        self._sequences: dict[int, int] = {}
        self.facts = VolumeFacts(recovery=self._recovery())

    def stat(self, file: FileId) -> Stat:
        found = self._file(file.ino)
        whole = file_stat(self._table, found)
        return stream_stat(whole, self._data(found, file), file.tree) if file.tree else whole

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        found = {}
        for record in self._table.records({file.ino for file in files if not file.tree}):
            found[record.number] = self._stat_of(record)
        return [found.get(file.ino) if not file.tree else self._stream(file) for file in files]

    def entries(self, folder: FileId) -> Iterator[DirEntry]:
        opened = self._folder(folder)
        sequences = self._sequences
        taken: dict[bytes, int] = {}
        for name, record, sequence in folder_entries(self._image, self._table, opened):
            if record >= _FIRST_FILE:
                if len(sequences) >= _SEQUENCES_MAX:
                    sequences.clear()
                sequences[record] = sequence
                if self._streams:
                    taken[name] = record
                yield DirEntry(name, FileId(0, record))
        if self._streams:
            yield from self._stream_entries(taken)

    def parent(self, folder: FileId) -> FileId | None:
        """See `folder_parents.KnowsParents`."""
        name = self._folder(folder).first(FILE_NAME)
        record = int.from_bytes(name.value[:6], "little") if name and name.value else 0
        return FileId(0, record) if record == _ROOT or record >= _FIRST_FILE else None

    def readlink(self, file: FileId) -> bytes:
        nature = file_nature(self._table, self._file(file.ino))
        if nature.format != stat.S_IFLNK or file.tree:
            raise GuestDamaged(f"file {file.ino} is no link")
        return nature.target

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        """The smaller streams, as long as they are not more than 1 MiB together."""
        opened = self._file(file.ino)
        found: dict[bytes, bytes] = {}
        room = _XATTRS_MAX
        for number, stream in enumerate(() if file.tree else opened.streams(), 1):
            if stream.size <= min(_XATTR_MAX, room):
                name = b"user." + name_bytes(stream.name)
                found[name] = self.read(FileId(number, file.ino), 0, stream.size)
                room -= stream.size
        return found

    def extents(self, file: FileId) -> Sequence[Extent]:
        """Raises GuestUnsupported for content that is not (all) on the volume."""
        return self._mapped.get(file, lambda: self._map(file))

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        def decoded(start: int, size: int) -> bytes:
            return self._decoded(file, start, size)

        return RunBytes(self._image, self.extents(file), decoded).read_some(offset, length)

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return {}

    def _recovery(self) -> str:
        volume, log = self._file(VOLUME_RECORD), self._file(LOG_RECORD)
        data = log.first(DATA)
        if data is None or data.value is not None:
            raise GuestDamaged("the volume's log has no content")
        content = RunBytes(self._image, self._table.mapped(log.segments(data)))
        return recovery_note(volume, min(content.size, data.initialized), content.read)

    def _file(self, number: int) -> NtfsFile:
        opened = self._open.get(number, lambda: open_file(self._table, self._table.record(number)))
        self._refuse_earlier(opened.number, opened.sequence)
        return opened

    def _folder(self, folder: FileId) -> NtfsFile:
        opened = self._file(folder.ino)
        if not opened.directory or folder.tree:
            raise GuestDamaged(f"file {folder.ino} is no folder")
        return opened

    def _refuse_earlier(self, number: int, sequence: int) -> None:
        """A name whose sequence is another one was given to an earlier file of that number."""
        if self._sequences.get(number, sequence) != sequence:
            raise GuestDamaged(f"a name means an earlier file than {number} is now")

    def _stat_of(self, record: FileRecord) -> Stat | None:
        try:
            self._refuse_earlier(record.number, record.sequence)
            return plain_stat(record) or file_stat(self._table, open_file(self._table, record))
        except GuestDamaged:
            return None

    def _stream(self, file: FileId) -> Stat | None:
        try:
            return self.stat(file)
        except GuestDamaged:
            return None

    def _data(self, opened: NtfsFile, file: FileId) -> Attribute:
        """Its content, or that of the stream that is meant."""
        if not file.tree:
            return opened.first(DATA) or _NO_DATA
        streams = opened.streams()
        if file.tree > len(streams):
            raise GuestDamaged(f"file {file.ino} has no stream {file.tree}")
        return streams[file.tree - 1]

    def _map(self, file: FileId) -> list[Extent]:
        opened = self._file(file.ino)
        data = self._data(opened, file)
        segments = opened.segments(data) or [data]
        extents = data_extents(self._table, segments, self._geometry.cluster)
        found = check_extents(extents, data.size, self._image.size)
        if not file.tree:
            self._refuse_placeholder(opened, found)
        return found

    def _refuse_placeholder(self, opened: NtfsFile, extents: list[Extent]) -> None:
        reparse = file_nature(self._table, opened).reparse
        on_disk = reparse.cloud and all(extent.at != HOLE for extent in extents)
        if reparse.problem and not on_disk:
            raise GuestUnsupported(f"a file's content is not in it: {reparse.problem}")

    def _decoded(self, file: FileId, offset: int, length: int) -> bytes:
        data = self._data(self._file(file.ino), file)
        if data.value is not None:
            return data.value[offset : offset + length]
        return self._compressed.read(file.ino, data.name, offset, length)

    def _stream_entries(self, taken: Mapping[bytes, int]) -> Iterator[DirEntry]:
        """Beside the names of a folder: the streams that are too large to be attributes."""
        streams: dict[int, list[tuple[int, bytes]]] = {}
        for record in self._table.records(taken.values()):
            large = [
                (place, name_bytes(stream.name))
                for place, stream in enumerate(open_file(self._table, record).streams(), 1)
                if stream.size > _XATTR_MAX
            ]
            if large:
                streams[record.number] = large
        for name, number in taken.items():
            for place, stream_name in streams.get(number, ()):
                shown = name + b":" + stream_name
                # A name may itself hold a colon; this is how Windows writes it in full.
                while shown in taken:
                    shown += b":$DATA"
                yield DirEntry(shown, FileId(place, number))
