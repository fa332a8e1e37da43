"""A filesystem of the ext family, from its superblock to its files.

Decides how a file's content is offered: by its extents, or decoded where it lies in the inode or
where the journal's copy had to be changed; wires the parts together.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    HOLE,
    DirEntry,
    Extent,
    FileId,
    GuestDamaged,
    GuestUnsupported,
    Stat,
    VolumeFacts,
    VolumeImage,
)
from backpoint_fusefs.guest.parsers.ext.block_map import read_content, runs_of
from backpoint_fusefs.guest.parsers.ext.blocks import Blocks
from backpoint_fusefs.guest.parsers.ext.directory import Directory
from backpoint_fusefs.guest.parsers.ext.inline_data import inline_content
from backpoint_fusefs.guest.parsers.ext.inode import (
    ENCRYPTED,
    INLINE_DATA,
    Inode,
)
from backpoint_fusefs.guest.parsers.ext.inode_table import InodeTable
from backpoint_fusefs.guest.parsers.ext.journal_overlay import JournalOverlay
from backpoint_fusefs.guest.parsers.ext.journal_recovery import recover
from backpoint_fusefs.guest.parsers.ext.run import Run
from backpoint_fusefs.guest.parsers.ext.superblock import (
    EA_INODE,
    ROOT_INO,
    Superblock,
    read_superblock,
)
from backpoint_fusefs.guest.parsers.ext.xattrs import Xattrs

_TARGET_MAX = 4095
_I_BLOCK_SIZE = 60


def open_ext(image: VolumeImage) -> ExtFilesystem:
    """Raises GuestError where nothing of it can be read."""
    superblock = read_superblock(image)
    recovered = recover(image, superblock)
    if recovered.facts.replayed:
        # What the journal says of the superblock counts, such as a filesystem that has grown.
        superblock = read_superblock(recovered.image)
    filesystem = ExtFilesystem(recovered.image, superblock, recovered.facts)
    if not stat.S_ISDIR(filesystem.stat(filesystem.root).mode):
        raise GuestDamaged("its root is no folder")
    return filesystem


class ExtFilesystem:
    """Implements GuestFilesystem; every file is of tree 0."""

    root = FileId(0, ROOT_INO)

    def __init__(self, image: JournalOverlay, superblock: Superblock, facts: VolumeFacts) -> None:
        self.facts = facts
        self._image = image
        self._superblock = superblock
        self._blocks = Blocks(image, superblock)
        self._inodes = InodeTable(self._blocks, superblock)
        self._xattrs = Xattrs(self._blocks, superblock, self._inodes)
        # Pieces of one file are asked for one after the other; a long map is read once for all.
        self._runs = lru_cache(2)(self._read_runs)

    def stat(self, file: FileId) -> Stat:
        return self._inode(file).stat

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        found = self._inodes.stats(file.ino for file in files)
        return [found[file.ino] for file in files]

    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        return Directory(self._blocks, self._superblock, self._inode(folder)).entries()

    def parent(self, folder: FileId) -> FileId | None:
        """See `folder_parents.KnowsParents`."""
        return Directory(self._blocks, self._superblock, self._inode(folder)).parent()

    def readlink(self, file: FileId) -> bytes:
        inode = self._inode(file)
        if not inode.is_link:
            raise GuestDamaged(f"inode {inode.ino} is not a link")
        if inode.flags & ENCRYPTED:
            raise GuestUnsupported("this link's target is encrypted")
        target = self._target(inode).partition(b"\0")[0]
        if not target:
            raise GuestDamaged(f"link {inode.ino} leads nowhere")
        return target

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        return self._xattrs.of(self._inode(file))

    def extents(self, file: FileId) -> Iterable[Extent]:
        inode = self._file(file)
        if inode.flags & INLINE_DATA:
            return [Extent(0, inode.size, DECODED)] if inode.size else []
        return self._extents(inode)

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        inode = self._file(file)
        length = max(0, min(length, inode.size - offset))
        if inode.flags & INLINE_DATA:
            return inline_content(inode)[offset : offset + length]
        content = bytearray(length)
        block_size = self._blocks.size
        runs = self._runs(inode.ino)
        first = max(0, bisect_right(runs, offset // block_size, key=lambda run: run.logical) - 1)
        for logical, physical, count in islice(runs, first, None):
            start = max(offset, logical * block_size)
            end = min(offset + length, (logical + count) * block_size)
            if start >= offset + length:
                break
            if start < end:
                at = physical * block_size + start - logical * block_size
                content[start - offset : end - offset] = self._blocks.read_bytes(at, end - start)
        return bytes(content)

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return {}

    def _inode(self, file: FileId) -> Inode:
        return self._inodes.inode(file.ino)

    def _file(self, file: FileId) -> Inode:
        inode = self._inode(file)
        if not inode.is_regular:
            raise GuestDamaged(f"inode {inode.ino} is not a regular file")
        if inode.flags & ENCRYPTED:
            raise GuestUnsupported("this file's content is encrypted")
        return inode

    def _extents(self, inode: Inode) -> Iterator[Extent]:
        block_size, end = self._blocks.size, 0
        for logical, physical, count in runs_of(self._blocks, self._superblock, inode):
            if logical * block_size > end:
                yield Extent(end, logical * block_size - end, HOLE)
            end = logical * block_size
            for blocks, at in self._image.places(physical, count):
                length = min(blocks * block_size, inode.size - end)
                yield Extent(end, length, at)
                end += length
        if end < inode.size:
            yield Extent(end, inode.size - end, HOLE)

    def _read_runs(self, ino: int) -> list[Run]:
        inode = self._inodes.inode(ino)
        return list(runs_of(self._blocks, self._superblock, inode))

    def _target(self, inode: Inode) -> bytes:
        if inode.flags & INLINE_DATA:
            return inline_content(inode)
        if self._is_in_inode(inode):
            return inode.i_block[: inode.size]
        if inode.size > min(_TARGET_MAX, self._blocks.size):
            raise GuestDamaged(f"link {inode.ino} is too long")
        runs = runs_of(self._blocks, self._superblock, inode)
        return read_content(self._blocks, runs, inode.size)

    def _is_in_inode(self, inode: Inode) -> bool:
        """As `ext4_inode_is_fast_symlink`: blocks of attributes do not count as content."""
        if self._superblock.incompat & EA_INODE:
            return inode.size < _I_BLOCK_SIZE
        of_attributes = self._superblock.cluster_size if inode.xattr_block else 0
        return inode.stat.allocated == of_attributes
