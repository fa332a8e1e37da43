"""What the items of a subvolume say: inodes, directory entries, extended attributes, roots.

Decides which of these are possible. By struct, not by dissect's cstruct, which takes 47 us for an
entry and its inode; layouts as in Linux include/uapi/linux/btrfs_tree.h.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from dissect.btrfs.c_btrfs import c_btrfs

from backpoint_fusefs.guest.filesystem import GuestDamaged, Stat
from backpoint_fusefs.guest.parsers.btrfs.superblock import TreeRoot

INODE_ITEM: Final = 1
INODE_REF: Final = 12
XATTR_ITEM: Final = 24
DIR_ITEM: Final = 84
DIR_INDEX: Final = 96
EXTENT_DATA: Final = 108
ROOT_ITEM: Final = 132
ROOT_REF: Final = 156

_FOLDER: Final = stat.S_IFDIR
_DEVICES: Final = (stat.S_IFCHR, stat.S_IFBLK)
_FILE_TYPES: Final = frozenset(
    (stat.S_IFREG, _FOLDER, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, *_DEVICES)
)
_SECOND_NS: Final = 1_000_000_000

# size, nbytes, nlink, uid, gid, mode, rdev; atime, ctime, mtime. Seconds are signed in the kernel.
_INODE: Final = Struct("<16xQQ8xIIIIQ48xqIqIqI12x")
INODE_SIZE: Final = _INODE.size
# location; lengths of data and name, type.
_ENTRY: Final = Struct("<QBQ8xHHB")
# dirid, name's length.
_ROOT_REF: Final = Struct("<Q8xH")
# Name's length.
_INODE_REF: Final = Struct("<8xH")
_NAME_MAX: Final = 255


class Entry(NamedTuple):
    """kind: the item type of what it points to, ROOT_ITEM for a subvolume."""

    name: bytes
    kind: int
    objectid: int


class Root(NamedTuple):
    """Where a tree is; dead: deleted, not yet cleaned away."""

    root: TreeRoot
    dead: bool


class Parent(NamedTuple):
    """Where a subvolume is linked: a name in a folder of its parent."""

    folder: int
    name: bytes


def parse_stat(tree: int, ino: int, block: bytes, at: int, sector_size: int) -> Stat:
    """An inode item in a node's bytes, as the kernel's stat shows it."""
    size, nbytes, nlink, uid, gid, mode, rdev, asec, ansec, csec, cnsec, msec, mnsec = (
        _INODE.unpack_from(block, at)
    )
    kind = stat.S_IFMT(mode)
    if kind not in _FILE_TYPES or mode > 0xFFFF or (size | nbytes) >> 63:
        raise GuestDamaged(f"the inode {ino} is impossible")
    return Stat(
        tree,
        ino,
        mode,
        1 if kind == _FOLDER else nlink,
        uid,
        gid,
        size,
        -(-nbytes // sector_size) * sector_size,
        asec * _SECOND_NS + ansec,
        msec * _SECOND_NS + mnsec,
        csec * _SECOND_NS + cnsec,
        _device(rdev) if kind in _DEVICES else 0,
    )


def parse_entry(block: bytes, at: int, length: int) -> Entry:
    """A directory's index item, which holds one name."""
    if length <= _ENTRY.size:
        raise GuestDamaged("a directory entry is cut off")
    objectid, kind, _, data_length, name_length, _ = _ENTRY.unpack_from(block, at)
    if data_length or name_length > _NAME_MAX or length != _ENTRY.size + name_length:
        raise GuestDamaged("a directory entry has impossible lengths")
    name = block[at + _ENTRY.size : at + length]
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise GuestDamaged(f"a directory entry has the impossible name {name!r}")
    if kind not in (INODE_ITEM, ROOT_ITEM):
        raise GuestDamaged(f"the directory entry {name!r} points to no file")
    return Entry(name, kind, objectid)


def parse_named(item: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """(name, data, objectid pointed to) of all names that share a hash: attributes, entries."""
    at = 0
    while at < len(item):
        if len(item) - at < _ENTRY.size:
            raise GuestDamaged("a list of names is cut off")
        objectid, _, _, data_length, name_length, _ = _ENTRY.unpack_from(item, at)
        at += _ENTRY.size
        data_at = at + name_length
        end = data_at + data_length
        if end > len(item) or not name_length:
            raise GuestDamaged("a name in a list of names is cut off")
        yield item[at:data_at], item[data_at:end], objectid
        at = end


def parse_root(item: bytes) -> Root:
    """A root item; the shorter form of kernels before 3.6 has all that is used here."""
    whole = len(c_btrfs.btrfs_root_item)
    if not 239 <= len(item) <= whole:
        raise GuestDamaged("a root item has an impossible length")
    raw = c_btrfs.btrfs_root_item(item.ljust(whole, b"\0"))
    return Root(TreeRoot(raw.bytenr, raw.level, raw.generation), dead=not raw.refs)


def parse_root_ref(item: bytes) -> Parent:
    """A parent's reference to a subvolume."""
    if len(item) <= _ROOT_REF.size:
        raise GuestDamaged("a reference to a subvolume is cut off")
    folder, length = _ROOT_REF.unpack_from(item)
    if len(item) != _ROOT_REF.size + length:
        raise GuestDamaged("a reference to a subvolume has an impossible length")
    return Parent(folder, item[_ROOT_REF.size :])


def parse_inode_ref(item: bytes) -> bytes:
    """The first name in a reference from a file to a folder; a folder has no other."""
    if len(item) <= _INODE_REF.size:
        raise GuestDamaged("a reference to a folder is cut off")
    (length,) = _INODE_REF.unpack_from(item)
    if not 0 < length <= len(item) - _INODE_REF.size:
        raise GuestDamaged("a reference to a folder has an impossible length")
    return item[_INODE_REF.size : _INODE_REF.size + length]


def _device(rdev: int) -> int:
    """The kernel writes its own dev_t, 32 bits: 12 of the major number, 20 of the minor."""
    return os.makedev(rdev >> 20 & 0xFFF, rdev & 0xFFFFF)
