"""What a new session holds: the point's configuration files, its disks' descriptors, its disks.

Decides under which names, the same that the point's folder in a mount has; `point.json` and `guest`
are the mount's own. Where the folder is, and when it is a session, is for `session_home.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backpoint_fusefs.inodes import take_apart
from backpoint_fusefs.live.node_tree import NAMES, ROOT_NODE, LiveNode, NodeTree, NodeType
from backpoint_fusefs.live.session import FILES
from backpoint_fusefs.point_folder import PointFolder
from backpoint_repo.durable_file import fsync_folder, write_durably
from backpoint_repo.point import ConfigFile, Disk, Point
from backpoint_repo.repository import Repository

_MODE: Final = 0o600
_NS: Final = 10**9

Content = bytes | ConfigFile | None
"""What a file begins with; None for a disk."""


def fill_session(folder: Path, repository: Repository, point: Point) -> None:
    """Durable when it returns, but for the folder's own name. The time it takes is that of reading
    the configuration files. Raises what a repository raises, and OSError."""
    planned = list(plan_files(point))
    files = folder / FILES
    files.mkdir(mode=0o700)
    tree = NodeTree(folder / NAMES)
    try:
        nodes = tree.create_all([node for node, _ in planned])
    finally:
        tree.close()
    for node, (_, content) in zip(nodes, planned, strict=True):
        if isinstance(content, ConfigFile):
            content = repository.read_file(content)
        if content is not None:
            write_durably(files / str(node.number), content)
    fsync_folder(folder)


def plan_files(point: Point) -> Iterator[tuple[LiveNode, Content]]:
    """Nodes without numbers, in the order of the point's folder."""
    shown = PointFolder(point)
    for entry in shown.entries():
        role = take_apart(entry.node.inode).role
        number = shown.disk_number(role)
        try:
            source = shown.source(role)
        except KeyError:
            continue  # a folder
        if isinstance(source, Disk):
            yield _node(entry.name, point, number), None
        elif number is not None or isinstance(source, ConfigFile):
            yield _node(entry.name, point, None), source


def _node(name: bytes, point: Point, disk: int | None) -> LiveNode:
    kind = NodeType.FILE if disk is None else NodeType.DISK
    when = int(point.time * _NS)
    uid, gid = os.geteuid(), os.getegid()
    return LiveNode(0, kind, ROOT_NODE, name, _MODE, uid, gid, when, when, disk)
