"""A node of a session's folder as a value, as a row, and which rows make up a tree. Pure.

Rows come from a file that anybody may have put there, so everything about them is checked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

ROOT_NODE: Final = 1
NODES_MAX: Final = 100_000
"""At once; more are refused with ENOSPC, so that a mad guest cannot eat the mount's memory."""
NUMBER_MAX: Final = (1 << 26) - 1
"""Inode numbers have room for 26 bits of it; after 67 million creations a session is used up."""
NAME_MAX: Final = 255
TARGET_MAX: Final = 4095
"""Bytes, as Linux counts them."""

_INT32: Final = range(1 << 32)
_INT64: Final = range(-(1 << 63), 1 << 63)


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


Row = tuple[int, str, int, bytes, int, int, int, int, int, int | None, bytes]
"""The fields of a LiveNode, in order."""
_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    *((int,), (str,), (int,), (bytes,)),
    *((int,), (int,), (int,), (int,), (int,)),
    *((int, type(None)), (bytes,)),
)


def row_of(node: LiveNode) -> Row:
    """As it is stored."""
    return (
        node.number,
        node.type.value,
        node.parent,
        node.name,
        node.mode,
        node.uid,
        node.gid,
        node.mtime_ns,
        node.ctime_ns,
        node.disk,
        node.target,
    )


def is_name(name: bytes) -> bool:
    """Whether a file can be called that; its length aside."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


def check_name(name: bytes) -> None:
    """Raises OSError (ENAMETOOLONG, EINVAL) where a file cannot be called that."""
    if len(name) > NAME_MAX:
        raise fault(errno.ENAMETOOLONG, name)
    if not is_name(name):
        raise fault(errno.EINVAL, name)


def fault(number: int, name: bytes) -> OSError:
    """What a program that uses the name is told."""
    return OSError(number, os.strerror(number), os.fsdecode(name))


def is_storable(node: LiveNode) -> bool:
    """Whether its fields are in range and fit its type."""
    return (
        0 < node.number <= NUMBER_MAX
        and 0 <= node.parent <= NUMBER_MAX
        and stat.S_IMODE(node.mode) == node.mode
        and node.uid in _INT32
        and node.gid in _INT32
        and node.mtime_ns in _INT64
        and node.ctime_ns in _INT64
        and (node.disk is not None and node.disk in _INT32) == (node.type is NodeType.DISK)
        and len(node.target) <= TARGET_MAX
        and bool(node.target) == (node.type is NodeType.LINK)
    )


def moved_to(node: LiveNode, folder: int, name: bytes, now_ns: int) -> LiveNode:
    """The node under another name; folder 0: under none."""
    return replace(node, parent=folder, name=name, ctime_ns=now_ns)


def with_latest_times(node: LiveNode, known: LiveNode | None) -> LiveNode:
    """The node, not older than it is known to be."""
    if known is None:
        return node
    mtime_ns, ctime_ns = max(node.mtime_ns, known.mtime_ns), max(node.ctime_ns, known.ctime_ns)
    return replace(node, mtime_ns=mtime_ns, ctime_ns=ctime_ns)


def decode_nodes(rows: Iterable[tuple[Any, ...]]) -> dict[int, LiveNode]:
    """By number. Raises ValueError, saying why, where the rows are no tree."""
    nodes: dict[int, LiveNode] = {}
    for row in rows:
        if not all(type(value) in kinds for value, kinds in zip(row, _TYPES, strict=True)):
            raise ValueError("a row has the wrong types")
        node = LiveNode(row[0], NodeType(row[1]), *row[2:])
        if not is_storable(node):
            raise ValueError(f"node {node.number} says what none can be")
        nodes[node.number] = node
    _check_tree(nodes)
    return nodes


def _check_tree(nodes: dict[int, LiveNode]) -> None:
    """Every node in a folder under a name of its own, every folder reached from the root."""
    root = nodes.get(ROOT_NODE)
    if root is None or root.type is not NodeType.FOLDER or root.parent != ROOT_NODE or root.name:
        raise ValueError("there is no root folder")
    taken = set()
    disks = set()
    for node in nodes.values():
        if node.disk is not None and node.disk in disks:
            raise ValueError(f"disk {node.disk} is there twice")
        disks.add(node.disk)
        if node.number == ROOT_NODE or (node.parent == 0 and node.type is not NodeType.FOLDER):
            continue
        parent = nodes.get(node.parent)
        if parent is None or parent.type is not NodeType.FOLDER:
            raise ValueError(f"node {node.number} is in no folder")
        if not is_name(node.name) or len(node.name) > NAME_MAX or (node.parent, node.name) in taken:
            raise ValueError(f"node {node.number} has a name that it cannot have")
        taken.add((node.parent, node.name))
    _check_reached(nodes)


def _check_reached(nodes: dict[int, LiveNode]) -> None:
    reached = {ROOT_NODE}
    for node in nodes.values():
        if node.type is not NodeType.FOLDER:
            continue
        way: list[int] = []
        number = node.number
        while number not in reached:
            if len(way) > len(nodes):
                raise ValueError(f"folder {node.number} is inside itself")
            way.append(number)
            number = nodes[number].parent
        reached.update(way)
