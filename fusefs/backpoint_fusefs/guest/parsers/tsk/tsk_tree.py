"""HFS+ as The Sleuth Kit gives it. Files are found by number, never by path.

Decides what of the library's view is the guest's: no deleted files, none of the library's own or
the filesystem's. HFS+'s attributes are shown as `user.`, its resource forks as macOS names them.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pytsk3

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    DirEntry,
    Extent,
    FileId,
    GuestDamaged,
    Stat,
    VolumeFacts,
    VolumeImage,
    check_extents,
)
from backpoint_fusefs.guest.parsers.recent import Recent
from backpoint_fusefs.guest.parsers.run_bytes import RunBytes
from backpoint_fusefs.guest.parsers.single_stats import single_stats
from backpoint_fusefs.guest.parsers.tsk.tsk_file import attributes_of, data_extents, file_stat
from backpoint_fusefs.guest.parsers.tsk.tsk_image import TskImage, open_tsk_filesystem

_ROOT: Final = 2
# Below are HFS+'s own files.
_FIRST_FILE: Final = 16
_OPEN_MAX: Final = 64
_NUMBER_MAX: Final = 1 << 39
_LINK_MAX: Final = 1 << 16
_XATTR_MAX: Final = 1 << 16
_HEADER_AT: Final = 1024
_UNMOUNTED: Final = 0x100
_UNCLEAN: Final = "the volume was not unmounted; HFS+'s journal is not replayed"
# Where the targets of hard links are kept, under these names in the root.
_PRIVATE: Final = (b"HFS+ Private Data", b".HFS+ Private Directory Data")


class TskTree:
    def __init__(self, image: VolumeImage) -> None:
        header = image.read(_HEADER_AT, 512)
        if header[:2] not in (b"H+", b"HX"):
            raise GuestDamaged("this is no HFS+ volume")
        clean = int.from_bytes(header[4:8], "big") & _UNMOUNTED
        self.root = FileId(0, _ROOT)
        self.facts = VolumeFacts(recovery="" if clean else _UNCLEAN)
        self._image = image
        self._tsk_image = TskImage(image)
        self._filesystem = open_tsk_filesystem(self._tsk_image, pytsk3.TSK_FS_TYPE_HFS)
        self._block = int(self._filesystem.info.block_size)
        self._open: Recent[int, Any] = Recent(_OPEN_MAX)

    def stat(self, file: FileId) -> Stat:
        with self._tsk_image.failures():
            found = file_stat(self._file(file.ino), file.ino)
        if stat.S_ISLNK(found.mode):
            found = found._replace(size=len(self.readlink(file)))
        return found

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        return single_stats(self.stat, files)

    def entries(self, folder: FileId) -> Iterator[DirEntry]:
        with self._tsk_image.failures():
            names = [entry.info.name for entry in self._filesystem.open_dir(inode=folder.ino)]
            found = [
                (bytes(name.name), int(name.meta_addr))
                for name in names
                if int(name.flags) == int(pytsk3.TSK_FS_NAME_FLAG_ALLOC)
            ]
        for name, number in dict.fromkeys(found):
            hidden = folder.ino == _ROOT and name.strip(b"^\0\r").startswith(_PRIVATE)
            if name not in (b".", b"..") and _FIRST_FILE <= number < _NUMBER_MAX and not hidden:
                yield DirEntry(name, FileId(0, number))

    def readlink(self, file: FileId) -> bytes:
        with self._tsk_image.failures():
            opened = self._file(file.ino)
            meta = opened.info.meta
            if meta.link:
                return bytes(meta.link)
            size = int(meta.size)
            if not 0 < size <= _LINK_MAX:
                raise GuestDamaged(f"a link's target has {size} bytes")
            return bytes(opened.read_random(0, size))

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        found = {}
        with self._tsk_image.failures():
            opened = self._file(file.ino)
            for kind in (pytsk3.TSK_FS_ATTR_TYPE_HFS_EXT_ATTR, pytsk3.TSK_FS_ATTR_TYPE_HFS_RSRC):
                for attribute in attributes_of(opened, int(kind)):
                    info = attribute.info
                    size = int(info.size)
                    name = bytes(info.name or b"")
                    if kind == pytsk3.TSK_FS_ATTR_TYPE_HFS_RSRC:
                        name = b"com.apple.ResourceFork" if size else b""
                    if name and size <= _XATTR_MAX:
                        value = opened.read_random(0, size, kind, int(info.id)) if size else b""
                        found[b"user." + name] = bytes(value)
        return found

    def extents(self, file: FileId) -> Sequence[Extent]:
        size = self.stat(file).size
        with self._tsk_image.failures():
            kind = int(pytsk3.TSK_FS_ATTR_TYPE_HFS_DATA)
            data = attributes_of(self._file(file.ino), kind)
            if not data:
                found = [] if not size else [Extent(0, size, DECODED)]
            else:
                found = list(data_extents(data[0], size, self._block))
        return check_extents(found, size, self._image.size)

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        def decoded(start: int, size: int) -> bytes:
            return self._decoded(file, start, size)

        return RunBytes(self._image, self.extents(file), decoded).read_some(offset, length)

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return {}

    def _decoded(self, file: FileId, offset: int, length: int) -> bytes:
        with self._tsk_image.failures():
            found = bytes(self._file(file.ino).read_random(offset, length))
        if len(found) != length:
            raise GuestDamaged(f"a compressed file ends at byte {offset + len(found)}")
        return found

    def _file(self, number: int) -> Any:
        return self._open.get(number, lambda: self._filesystem.open_meta(inode=number))
