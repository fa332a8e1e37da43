"""Nodes as the kernel sees them: stat fields, how long they may be kept, extended attributes."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyfuse3

from backpoint_fusefs.node import Node, NodeKind
from backpoint_fusefs.point_json import point_fields
from backpoint_repo.point import Point

GENERATION: Final = 1
"""Constant, because numbers are never used twice: a handle is valid in every later mount."""
GROWING_TIMEOUT_S: Final = 1.0
LASTING_TIMEOUT_S: Final = 86400.0
"""For what never changes; what is removed is taken back by an invalidation."""
_BLOCK: Final = 512
_BLOCK_SIZE: Final = {NodeKind.FOLDER: 4096, NodeKind.LINK: 4096, NodeKind.FILE: 1 << 20}
"""What programs read at once: whole megabytes of a file."""
_OWNERS: Final = {
    NodeKind.FOLDER: stat.S_IFDIR | 0o500,
    NodeKind.FILE: stat.S_IFREG | 0o400,
    NodeKind.LINK: stat.S_IFLNK | 0o777,
}
_EVERYBODYS: Final = {
    NodeKind.FOLDER: stat.S_IFDIR | 0o555,
    NodeKind.FILE: stat.S_IFREG | 0o444,
    NodeKind.LINK: stat.S_IFLNK | 0o777,
}
XATTR_PREFIX: Final = b"user.backpoint."


@dataclass(frozen=True)
class Owner:
    """Who everything in the mount belongs to, and whether others may read it."""

    uid: int
    gid: int
    shared: bool


def attributes_of(node: Node, owner: Owner, changed: float) -> pyfuse3.EntryAttributes:
    """changed: when the listing last changed (seconds since 1970), the ctime of what grows."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(node.inode)
    entry.generation = GENERATION
    timeout = GROWING_TIMEOUT_S if node.growing else LASTING_TIMEOUT_S
    entry.entry_timeout = entry.attr_timeout = timeout
    entry.st_mode = pyfuse3.ModeT((_EVERYBODYS if owner.shared else _OWNERS)[node.kind])
    entry.st_nlink = 2 + node.subfolders if node.kind is NodeKind.FOLDER else 1
    entry.st_uid, entry.st_gid = owner.uid, owner.gid
    entry.st_size = node.size
    entry.st_blksize = _BLOCK_SIZE[node.kind]
    entry.st_blocks = -(-node.allocated // _BLOCK)
    modified_ns = int(node.modified * 1e9)
    entry.st_atime_ns = entry.st_mtime_ns = modified_ns
    # Network clients ask a folder's ctime whether it is still what they know.
    entry.st_ctime_ns = int(changed * 1e9) if node.growing else modified_ns
    return entry


def point_xattrs(point: Point) -> dict[bytes, bytes]:
    """Extended attributes of a point's folder."""
    fields = point_fields(point)
    shown = (
        "id",
        "vm",
        "label",
        "point",
        "time",
        "created",
        "size",
        "allocated",
        "consistency",
        "parent",
    )
    found = {name: fields[name] for name in shown if fields[name] is not None}
    return text_xattrs(found | {"warnings": "\n".join(point.warnings)})


def disk_xattrs(point: Point, number: int) -> dict[bytes, bytes]:
    """Extended attributes of a disk's files."""
    disk = point.disks[number]
    return point_xattrs(point) | text_xattrs(
        {
            "size": disk.size,
            "allocated": disk.allocated,
            "disk": disk.key,
            "source": disk.source,
        }
    )


def text_xattrs(fields: Mapping[str, object]) -> dict[bytes, bytes]:
    """With their full names, as text."""
    return {
        XATTR_PREFIX + name.encode(): str(value).encode("utf-8", "backslashreplace")
        for name, value in fields.items()
    }
