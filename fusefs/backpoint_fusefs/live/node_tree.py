"""Names in a session's folder: which files, folders and links there are, and what they are.

Kept in SQLite (`names.sqlite`) and whole in memory: reads never wait; a change is durable when it
returns, because ESXi and NFS clients count on names. Numbers are never used twice, so that a file
handle from long ago cannot mean another file. Knows names and attributes, no content.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

ROOT_NODE: Final = 1
NODES_MAX: Final = 100_000
"""At once; more are refused with ENOSPC, so that a mad guest cannot eat the mount's memory."""


class NodeType(Enum):
    """What a node is. DISK: an overlaid disk of the point, FILE: bytes of the session's own."""

    FOLDER = "folder"
    DISK = "disk"
    FILE = "file"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class LiveNode:
    """mode: permission bits only. *_ns: nanoseconds since 1970. disk: its number in the point, for
    DISK. target: of a LINK. parent: 0 once it is unlinked and only open any more."""

    number: int
    type: NodeType
    parent: int
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    disk: int | None = None
    target: bytes = b""


class NodeTree:
    """Thread-safe; methods that change wait for the disk. They raise OSError with the errno that
    POSIX gives them (EEXIST, ENOTEMPTY, ENOTDIR, EISDIR, ENAMETOOLONG, EINVAL, ENOSPC)."""

    def __init__(self, path: Path) -> None:
        """Opens, or makes a tree with an empty root folder. Raises SessionDamaged, OSError."""
        raise NotImplementedError

    def node(self, number: int) -> LiveNode | None:
        raise NotImplementedError

    def child(self, folder: int, name: bytes) -> LiveNode | None:
        raise NotImplementedError

    def children(self, folder: int) -> list[LiveNode]:
        """In a steady order (by number)."""
        raise NotImplementedError

    def create(self, node: LiveNode) -> LiveNode:
        """`node` with number 0 gets its number. Its name must be free in its folder."""
        raise NotImplementedError

    def unlink(self, folder: int, name: bytes) -> LiveNode:
        """Takes the name away; the node stays, with parent 0, until `drop`. Not for folders."""
        raise NotImplementedError

    def remove_folder(self, folder: int, name: bytes) -> LiveNode:
        """An empty one; gone at once."""
        raise NotImplementedError

    def rename(
        self, folder: int, name: bytes, new_folder: int, new_name: bytes, *, replace: bool
    ) -> LiveNode | None:
        """Atomic. Returns the node that was replaced, unlinked as by `unlink`."""
        raise NotImplementedError

    def change(self, node: LiveNode) -> None:
        """Attributes (mode, uid, gid, times) of the node with this number."""
        raise NotImplementedError

    def touch(self, number: int, mtime_ns: int) -> None:
        """Content was written: in memory now, durable with `save_times`."""
        raise NotImplementedError

    def save_times(self) -> None:
        raise NotImplementedError

    def drop(self, number: int) -> None:
        """An unlinked node's end: nobody has it open any more."""
        raise NotImplementedError

    def unlinked(self) -> list[LiveNode]:
        """Left by a crash: to be dropped when the session is opened."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
