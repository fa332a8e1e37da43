"""An XFS filesystem behind the contract of all guest filesystems.

Wires the package's parts together; decides only how a file's mapped blocks become its extents.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence

from backpoint_fusefs.guest.filesystem import (
    HOLE,
    DirEntry,
    Extent,
    FileId,
    GuestDamaged,
    GuestFilesystem,
    GuestUnsupported,
    Stat,
    VolumeFacts,
    VolumeImage,
)
from backpoint_fusefs.guest.parsers.xfs.access_list import with_access_lists
from backpoint_fusefs.guest.parsers.xfs.attributes import attributes
from backpoint_fusefs.guest.parsers.xfs.block_reader import BlockReader
from backpoint_fusefs.guest.parsers.xfs.extent_map import mappings
from backpoint_fusefs.guest.parsers.xfs.folder import folder_entries, folder_parent
from backpoint_fusefs.guest.parsers.xfs.inode import Inode
from backpoint_fusefs.guest.parsers.xfs.inode_table import InodeTable
from backpoint_fusefs.guest.parsers.xfs.link_target import link_target
from backpoint_fusefs.guest.parsers.xfs.log_state import missing_changes
from backpoint_fusefs.guest.parsers.xfs.superblock import read_superblock


def open_xfs(image: VolumeImage) -> GuestFilesystem:
    """Raises GuestError where the volume holds no XFS that can be read."""
    reader = BlockReader(image, read_superblock(image))
    return XfsFilesystem(reader, VolumeFacts(recovery=missing_changes(reader)))


class XfsFilesystem:
    """One tree: every FileId's tree is 0."""

    def __init__(self, reader: BlockReader, facts: VolumeFacts) -> None:
        self._reader = reader
        self._block_size = reader.superblock.block_size
        self._inodes = InodeTable(reader)
        self.facts = facts
        self.root = FileId(0, reader.superblock.root)
        self._inode(self.root, stat.S_IFDIR)

    def stat(self, file: FileId) -> Stat:
        return self._inode(file).stat(self._block_size)

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        inos = [0 if tree else ino for tree, ino in files]
        size = self._block_size
        return [inode and inode.stat(size) for inode in self._inodes.many(inos)]

    def entries(self, folder: FileId) -> Iterator[DirEntry]:
        return folder_entries(self._reader, self._inode(folder, stat.S_IFDIR))

    def parent(self, folder: FileId) -> FileId | None:
        """See `folder_parents.KnowsParents`."""
        ino = folder_parent(self._reader, self._inode(folder, stat.S_IFDIR))
        return None if ino is None else FileId(0, ino)

    def readlink(self, file: FileId) -> bytes:
        return link_target(self._reader, self._inode(file, stat.S_IFLNK))

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        return with_access_lists(attributes(self._reader, self._inode(file)))

    def extents(self, file: FileId) -> Iterator[Extent]:
        inode = self._content(file)
        return self._extents(inode, 0, inode.size)

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        inode = self._content(file)
        end = min(offset + length, inode.size)
        parts = [
            bytes(found) if at == HOLE else self._reader.read(at, found)
            for _, found, at in self._extents(inode, offset, end)
        ]
        return b"".join(parts)

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return {}

    def _extents(self, inode: Inode, start: int, end: int) -> Iterator[Extent]:
        """Of bytes [start, end); blocks kept behind a file's end are cut off."""
        if start >= end:
            return
        size, done = self._block_size, start
        whole = start == 0 and end == inode.size
        # The whole map is asked for without bounds: only then the inode's count is compared.
        bounds = () if whole else (start // size, -(-end // size))
        for mapping in mappings(self._reader, inode.ino, inode.data_fork, *bounds):
            first = max(mapping.first * size, start)
            stop = min((mapping.first + mapping.blocks) * size, end)
            if first >= stop:
                continue
            if first > done:
                yield Extent(done, first - done, HOLE)
            at = HOLE if mapping.unwritten else mapping.at + first - mapping.first * size
            yield Extent(first, stop - first, at)
            done = stop
        if done < end:
            yield Extent(done, end - done, HOLE)

    def _content(self, file: FileId) -> Inode:
        inode = self._inode(file, stat.S_IFREG)
        if inode.realtime:
            raise GuestUnsupported("the file's content lies on a realtime device")
        return inode

    def _inode(self, file: FileId, kind: int | None = None) -> Inode:
        if file.tree:
            raise GuestDamaged(f"XFS has no tree {file.tree}")
        inode = self._inodes.one(file.ino)
        if kind is not None and stat.S_IFMT(inode.mode) != kind:
            raise GuestDamaged(f"inode {file.ino} is of another kind ({inode.mode:o})")
        return inode
