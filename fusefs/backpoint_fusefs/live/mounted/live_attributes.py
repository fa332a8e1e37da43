"""Nodes of sessions as the kernel sees them: stat fields, and how long they may be kept."""

from __future__ import annotations

import stat
from typing import Final, NamedTuple

import pyfuse3

from backpoint_fusefs.attributes import GENERATION, text_xattrs
from backpoint_fusefs.live.node_tree import LiveNode, NodeType
from backpoint_fusefs.live.session_record import SessionRecord

TIMEOUT_S: Final = 1.0
"""All changes go through the kernel, but a session may be let go of, and another mount shows what
was written in it meanwhile."""
_TYPES: Final = {
    NodeType.FOLDER: stat.S_IFDIR,
    NodeType.DISK: stat.S_IFREG,
    NodeType.FILE: stat.S_IFREG,
    NodeType.LINK: stat.S_IFLNK,
}
_BLOCK: Final = 512
_DISK_BLOCK_SIZE: Final = 1 << 20
_BLOCK_SIZE: Final = 4096
"""What programs read and write at once."""


class Extent(NamedTuple):
    """size: bytes of a file; allocated: those that are no hole."""

    size: int
    allocated: int


NOTHING: Final = Extent(0, 0)


def live_attributes(inode: int, node: LiveNode, extent: Extent) -> pyfuse3.EntryAttributes:
    """extent: of a file or a disk, `NOTHING` for others."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(inode)
    entry.generation = GENERATION
    entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
    entry.st_mode = pyfuse3.ModeT(_TYPES[node.type] | node.mode)
    # Folders: 1 means that folders in it are not counted, as btrfs does.
    entry.st_nlink = 1 if node.parent else 0
    entry.st_uid, entry.st_gid = node.uid, node.gid
    entry.st_size = len(node.target) if node.type is NodeType.LINK else extent.size
    entry.st_blocks = -(-extent.allocated // _BLOCK)
    entry.st_blksize = _DISK_BLOCK_SIZE if node.type is NodeType.DISK else _BLOCK_SIZE
    entry.st_atime_ns = entry.st_mtime_ns = node.mtime_ns
    entry.st_ctime_ns = node.ctime_ns
    return entry


def folder_attributes(inode: int, created: float) -> pyfuse3.EntryAttributes:
    """Of the folder of a session that nobody has touched yet, or that cannot be opened.

    created: seconds since 1970.
    """
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(inode)
    entry.generation = GENERATION
    entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
    entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o700)
    entry.st_nlink = 1
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = int(created * 1e9)
    return entry


def session_xattrs(record: SessionRecord) -> dict[bytes, bytes]:
    """Extended attributes of a session's folder."""
    fields = {
        "session": record.session_id,
        "vm": record.vm,
        "point": record.point_id,
        "origin": record.origin,
        "frozen": str(record.frozen).lower(),
        "owner": record.owner,
    }
    return text_xattrs({name: value for name, value in fields.items() if value})
