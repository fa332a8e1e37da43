"""A btrfs as a guest filesystem: files of all subvolumes, seen from the top one.

Decides what the mount shows as `mount -o subvolid=5` does. Changes that only the log tree holds
are not shown; `facts` says so. Checksums of metadata are verified, those of data are not.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from backpoint_fusefs.guest.filesystem import (
    DirEntry,
    Extent,
    FileId,
    GuestDamaged,
    GuestError,
    GuestUnsupported,
    Stat,
    VolumeFacts,
    VolumeImage,
)
from backpoint_fusefs.guest.parsers.btrfs.chunks import (
    CHUNK_ITEM,
    CHUNK_OBJECT,
    CHUNK_TREE,
    ChunkMap,
)
from backpoint_fusefs.guest.parsers.btrfs.file_extents import FileExtents
from backpoint_fusefs.guest.parsers.btrfs.items import (
    DIR_INDEX,
    INODE_ITEM,
    INODE_REF,
    INODE_SIZE,
    ROOT_ITEM,
    XATTR_ITEM,
    Entry,
    parse_entry,
    parse_named,
    parse_stat,
)
from backpoint_fusefs.guest.parsers.btrfs.node import DATA_START, NodeReader
from backpoint_fusefs.guest.parsers.btrfs.subvolumes import ROOT_FOLDER, Subvolumes
from backpoint_fusefs.guest.parsers.btrfs.superblock import read_superblock
from backpoint_fusefs.guest.parsers.btrfs.tree import FS_TREE, Tree

_ROOT_TREE: Final = 1
_INO_MAX: Final = 1 << 39

# Where a snapshot has no subvolume of that name: an empty folder, with this number in the kernel.
_PLACEHOLDER: Final = 2
_PLACEHOLDER_MODE: Final = stat.S_IFDIR | 0o755

_TARGET_MAX: Final = 4095
_XATTRS_BYTES_MAX: Final = 16 << 20

_LOG = (
    "Changes made durable by fsync just before this point was taken are in the filesystem's log "
    "tree and are not shown; mounting the disk would replay them."
)


def open_btrfs(image: VolumeImage) -> BtrfsFilesystem:
    """Raises GuestDamaged, GuestUnsupported."""
    superblock = read_superblock(image)
    chunks = ChunkMap(superblock.device, image.size)
    chunks.add_system(superblock.system_chunks)
    nodes = NodeReader(image, chunks, superblock)
    chunk_tree = Tree(nodes, CHUNK_TREE, superblock.chunk_root)
    low, high = (CHUNK_OBJECT, CHUNK_ITEM, 0), (CHUNK_OBJECT, CHUNK_ITEM + 1, 0)
    for item, data in chunk_tree.items(low, high):
        chunks.add(item[2], data)
    subvolumes = Subvolumes(nodes, Tree(nodes, _ROOT_TREE, superblock.root))
    extents = FileExtents(image, chunks, superblock.sector_size)
    facts = VolumeFacts(recovery=_LOG if superblock.has_log else "")
    return BtrfsFilesystem(subvolumes, extents, superblock.sector_size, facts)


class BtrfsFilesystem:
    """default_subvolume: the root of what a mount shows that names no subvolume."""

    def __init__(
        self, subvolumes: Subvolumes, extents: FileExtents, sector_size: int, facts: VolumeFacts
    ) -> None:
        self._subvolumes = subvolumes
        self._extents = extents
        self._sector_size = sector_size
        self.facts = facts
        self.root = FileId(FS_TREE, ROOT_FOLDER)
        self.default_subvolume = FileId(subvolumes.default(), ROOT_FOLDER)
        self.stat(self.root)

    def stat(self, file: FileId) -> Stat:
        """Raises GuestDamaged where there is no such file."""
        if file.ino == _PLACEHOLDER:
            return self._placeholder(file.tree)
        data = self._subvolumes.tree(file.tree).get((file.ino, INODE_ITEM, 0))
        if data is None or len(data) != INODE_SIZE:
            raise GuestDamaged(f"there is no inode {file.ino} in the subvolume {file.tree}")
        return parse_stat(file.tree, file.ino, data, 0, self._sector_size)

    def stats(self, files: Sequence[FileId]) -> list[Stat | None]:
        """Looked up in the order of the trees, where the files of a folder are often neighbours."""
        found: list[Stat | None] = [None] * len(files)
        by_tree: dict[int, list[tuple[int, int]]] = {}
        for place, (tree, ino) in enumerate(files):
            by_tree.setdefault(tree, []).append((ino, place))
        for tree, wanted in by_tree.items():
            wanted.sort()
            try:
                self._stats_in(tree, wanted, found)
            except GuestError:
                continue
        return found

    def entries(self, folder: FileId) -> Iterable[DirEntry]:
        """In the order in which they were made."""
        if not stat.S_ISDIR(self.stat(folder).mode):
            raise GuestDamaged(f"the inode {folder.ino} is not a folder")
        return self._entries(folder) if folder.ino != _PLACEHOLDER else ()

    def parent(self, folder: FileId) -> FileId | None:
        """See `folder_parents.KnowsParents`. The top of a subvolume does not tell."""
        tree, ino = folder
        if ino in (ROOT_FOLDER, _PLACEHOLDER):
            return None
        low, high = (ino, INODE_REF, 0), (ino, INODE_REF + 1, 0)
        found = next(self._subvolumes.tree(tree).items(low, high), None)
        return (
            None if found is None or not 0 < found[0][2] < _INO_MAX else FileId(tree, found[0][2])
        )

    def readlink(self, file: FileId) -> bytes:
        found = self.stat(file)
        if not stat.S_ISLNK(found.mode) or not 0 < found.size <= _TARGET_MAX:
            raise GuestDamaged(f"the inode {file.ino} is no sound link")
        tree = self._subvolumes.tree(file.tree)
        target = self._extents.read(tree, file.ino, 0, found.size)
        if b"\0" in target:
            raise GuestDamaged(f"the link {file.ino} points nowhere")
        return target

    def xattrs(self, file: FileId) -> Mapping[bytes, bytes]:
        """As they are stored: btrfs keeps full names, and ACLs in the form that programs see."""
        if file.ino == _PLACEHOLDER:
            return {}
        found: dict[bytes, bytes] = {}
        room = _XATTRS_BYTES_MAX
        low, high = (file.ino, XATTR_ITEM, 0), (file.ino, XATTR_ITEM + 1, 0)
        for _, item in self._subvolumes.tree(file.tree).items(low, high):
            room -= len(item)
            if room < 0:
                raise GuestDamaged(f"the inode {file.ino} has impossibly many attributes")
            for name, value, _ in parse_named(item):
                found[name] = value
        return found

    def extents(self, file: FileId) -> Iterable[Extent]:
        size = self._regular(file).size
        return self._extents.extents(self._subvolumes.tree(file.tree), file.ino, size)

    def read(self, file: FileId, offset: int, length: int) -> bytes:
        length = min(length, self._regular(file).size - offset)
        if length <= 0:
            return b""
        return self._extents.read(self._subvolumes.tree(file.tree), file.ino, offset, length)

    def subvolumes(self) -> Mapping[bytes, FileId]:
        return self._subvolumes.paths()

    def _stats_in(self, tree: int, wanted: list[tuple[int, int]], found: list[Stat | None]) -> None:
        """wanted: (inode, place in found), ascending."""
        keys = [(ino, INODE_ITEM, 0) for ino, _ in wanted]
        sector_size = self._sector_size
        for which, leaf, item in self._subvolumes.tree(tree).many(keys):
            if item[4] == INODE_SIZE:
                ino, place = wanted[which]
                start = DATA_START + item[3]
                try:
                    found[place] = parse_stat(tree, ino, leaf.block, start, sector_size)
                except GuestDamaged:
                    continue
        for ino, place in wanted:
            if ino == _PLACEHOLDER:
                found[place] = self._placeholder(tree)

    def _entries(self, folder: FileId) -> Iterator[DirEntry]:
        tree, ino = folder
        low, high = (ino, DIR_INDEX, 0), (ino, DIR_INDEX + 1, 0)
        for leaf, first, end in self._subvolumes.tree(tree).spans(low, high):
            for _, _, _, start, length in leaf.items[first:end]:
                entry = parse_entry(leaf.block, DATA_START + start, length)
                if entry.kind == ROOT_ITEM:
                    yield DirEntry(entry.name, self._below(folder, entry))
                elif 0 < entry.objectid < _INO_MAX:
                    yield DirEntry(entry.name, FileId(tree, entry.objectid))
                else:
                    raise GuestUnsupported(f"the inode number {entry.objectid} is too large")

    def _below(self, folder: FileId, entry: Entry) -> FileId:
        """What the entry of a subvolume shows."""
        if self._subvolumes.is_linked(folder.tree, folder.ino, entry.name, entry.objectid):
            return FileId(entry.objectid, ROOT_FOLDER)
        return FileId(folder.tree, _PLACEHOLDER)

    def _placeholder(self, tree: int) -> Stat:
        """Owner and times are not on the disk. The kernel takes the owner of the folder around it
        and the time of the look-up; we take all of them from the snapshot's root."""
        root = self.stat(FileId(tree, ROOT_FOLDER))
        return root._replace(ino=_PLACEHOLDER, mode=_PLACEHOLDER_MODE, size=0, allocated=0)

    def _regular(self, file: FileId) -> Stat:
        found = self.stat(file)
        if not stat.S_ISREG(found.mode):
            raise GuestDamaged(f"the inode {file.ino} is not a regular file")
        return found
