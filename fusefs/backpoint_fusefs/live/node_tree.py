"""Names in a session's folder: which files, folders and links there are, and what they are.

Kept in SQLite (`names.sqlite`) and whole in memory: reads never wait; a change is durable when it
returns, because ESXi and NFS clients count on names. Numbers are never used twice, so that a file
handle from long ago cannot mean another file. Knows names and attributes, no content.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.live_node import (
    NODES_MAX,
    NUMBER_MAX,
    ROOT_NODE,
    TARGET_MAX,
    LiveNode,
    NodeType,
    check_name,
    decode_nodes,
    fault,
    is_storable,
    moved_to,
    row_of,
    with_latest_times,
)
from backpoint_fusefs.live.node_table import NodeTable

__all__ = ["NAMES", "NODES_MAX", "ROOT_NODE", "LiveNode", "NodeTree", "NodeType"]

NAMES: Final = "names.sqlite"
_ROOT_MODE: Final = 0o700


class NodeTree:
    """Thread-safe; methods that change wait for the disk. They raise OSError with the errno that
    POSIX gives them (ENOENT, EEXIST, ENOTEMPTY, ENOTDIR, EISDIR, ENAMETOOLONG, EINVAL, ENOSPC),
    EROFS while `read_only`. Folders in which names change have new times.

    read_only: set where nothing may be changed any more but what was unlinked before.
    """

    def __init__(self, path: Path, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Opens, or makes a tree with an empty root folder. Raises SessionDamaged, OSError."""
        self.read_only = False
        self._clock_ns = clock_ns
        now = clock_ns()
        uid, gid = os.geteuid(), os.getegid()
        root = LiveNode(ROOT_NODE, NodeType.FOLDER, ROOT_NODE, b"", _ROOT_MODE, uid, gid, now, now)
        self._table = NodeTable(path, row_of(root))
        try:
            self._nodes = decode_nodes(self._table.rows())
            self._next = max(self._table.highest(), *self._nodes) + 1
        except ValueError as error:
            self._table.close()
            raise SessionDamaged(f"{path} is damaged: {error}") from None
        except BaseException:
            self._table.close()
            raise
        self._folders: dict[int, dict[bytes, int]] = {}
        for node in self._nodes.values():
            self._enter(node)
        self._dirty: set[int] = set()
        self._changing = threading.Lock()
        self._memory = threading.Lock()
        """Guards what is in memory; nobody waits for a disk while holding it."""

    def node(self, number: int) -> LiveNode | None:
        """Also one that is unlinked."""
        return self._nodes.get(number)

    def child(self, folder: int, name: bytes) -> LiveNode | None:
        with self._memory:
            number = self._folders.get(folder, {}).get(name)
            return None if number is None else self._nodes[number]

    def children(self, folder: int) -> list[LiveNode]:
        """In a steady order (by number)."""
        with self._memory:
            return [
                self._nodes[number] for number in sorted(self._folders.get(folder, {}).values())
            ]

    def linked(self) -> list[LiveNode]:
        """All nodes that have a name, the root among them, at one moment."""
        with self._memory:
            return [node for node in self._nodes.values() if node.parent]

    def create(self, node: LiveNode) -> LiveNode:
        """`node` with number 0 gets its number. Its name must be free in its folder."""
        return self.create_all([node])[0]

    def create_all(self, nodes: Sequence[LiveNode]) -> list[LiveNode]:
        """As `create`, all or none; what they are in must be there."""
        with self._changing:
            used_up = self._next + len(nodes) - 1 > NUMBER_MAX
            if used_up or len(self._nodes) + len(nodes) > NODES_MAX:
                raise fault(errno.ENOSPC, nodes[0].name)
            made = [replace(node, number=self._next + at) for at, node in enumerate(nodes)]
            folders = {node.parent: self._changed(self._folder(node.parent)) for node in nodes}
            self._check_new(nodes, made)
            self._commit([*made, *folders.values()])
            self._next += len(made)
            return made

    def unlink(self, folder: int, name: bytes) -> LiveNode:
        """Takes the name away; the node stays, with parent 0, until `drop`. Not for folders."""
        with self._changing:
            node = self._existing(folder, name)
            if node.type is NodeType.FOLDER:
                raise fault(errno.EISDIR, name)
            gone = replace(node, parent=0, ctime_ns=self._clock_ns())
            self._commit([gone, self._changed(self._folder(folder))])
            return self._nodes[gone.number]

    def remove_folder(self, folder: int, name: bytes) -> LiveNode:
        """An empty one; gone at once."""
        with self._changing:
            node = self._existing(folder, name)
            if node.type is not NodeType.FOLDER:
                raise fault(errno.ENOTDIR, name)
            if self._folders.get(node.number):
                raise fault(errno.ENOTEMPTY, name)
            self._commit([self._changed(self._folder(folder))], [node.number])
            return node

    def rename(
        self, folder: int, name: bytes, new_folder: int, new_name: bytes, *, replace: bool
    ) -> LiveNode | None:
        """Atomic. Returns the node that was replaced: unlinked as by `unlink`, or an empty folder
        that is gone as by `remove_folder`."""
        with self._changing:
            node = self._existing(folder, name)
            target = self._target(node, new_folder, new_name, replace)
            if target is not None and target.number == node.number:
                return None
            now = self._clock_ns()
            moved = moved_to(node, new_folder, new_name, now)
            parents = {
                number: self._changed(self._folder(number)) for number in (folder, new_folder)
            }
            changed = [moved, *parents.values()]
            if target is None:
                self._commit(changed)
            elif target.type is NodeType.FOLDER:
                self._commit(changed, [target.number])
            else:
                target = moved_to(target, 0, target.name, now)
                self._commit([target, *changed])
            return target

    def change(self, node: LiveNode) -> None:
        """Attributes (mode, uid, gid, times) of the node with this number."""
        with self._changing:
            found = self._nodes.get(node.number)
            if found is None:
                raise fault(errno.ENOENT, node.name)
            wanted = replace(found, mode=node.mode, uid=node.uid, gid=node.gid)
            wanted = replace(wanted, mtime_ns=node.mtime_ns, ctime_ns=node.ctime_ns)
            if not is_storable(wanted):
                raise fault(errno.EINVAL, node.name)
            with self._memory:
                self._dirty.discard(node.number)
            self._commit([wanted])

    def touch(self, number: int, mtime_ns: int) -> None:
        """Content was written: in memory now, durable with `save_times`."""
        with self._memory:
            if found := self._nodes.get(number):
                self._nodes[number] = replace(found, mtime_ns=mtime_ns, ctime_ns=mtime_ns)
                self._dirty.add(number)

    def save_times(self) -> None:
        with self._changing:
            with self._memory:
                dirty, self._dirty = self._dirty, set()
                nodes = [self._nodes[number] for number in dirty if number in self._nodes]
            try:
                if nodes:
                    self._table.write(map(row_of, nodes))
            except OSError:
                with self._memory:
                    self._dirty |= dirty
                raise

    def drop(self, *numbers: int) -> None:
        """Unlinked nodes' end: nobody has them open any more. Harmless when repeated."""
        with self._changing:
            nodes = [node for number in numbers if (node := self._nodes.get(number))]
            if linked := next((node for node in nodes if node.parent), None):
                raise fault(errno.EINVAL, linked.name)
            if nodes:
                self._table.write([], [node.number for node in nodes])
            with self._memory:
                for node in nodes:
                    del self._nodes[node.number]

    def unlinked(self) -> list[LiveNode]:
        """Left by a crash: to be dropped when the session is opened."""
        with self._memory:
            return [node for node in self._nodes.values() if not node.parent]

    def close(self) -> None:
        """Harmless when repeated. Changes raise OSError from now on."""
        with self._changing:
            self._table.close()

    def _check_new(self, nodes: Sequence[LiveNode], made: Sequence[LiveNode]) -> None:
        taken = set()
        for node, numbered in zip(nodes, made, strict=True):
            check_name(node.name)
            place = (node.parent, node.name)
            if place in taken or self.child(*place) is not None:
                raise fault(errno.EEXIST, node.name)
            if len(node.target) > TARGET_MAX:
                raise fault(errno.ENAMETOOLONG, node.name)
            if node.number or not is_storable(numbered):
                raise fault(errno.EINVAL, node.name)
            taken.add(place)

    def _existing(self, folder: int, name: bytes) -> LiveNode:
        check_name(name)
        self._folder(folder)
        found = self.child(folder, name)
        if found is None:
            raise fault(errno.ENOENT, name)
        return found

    def _folder(self, number: int) -> LiveNode:
        found = self._nodes.get(number)
        if found is None:
            raise fault(errno.ENOENT, b"")
        if found.type is not NodeType.FOLDER:
            raise fault(errno.ENOTDIR, found.name)
        return found

    def _target(
        self, node: LiveNode, folder: int, name: bytes, may_replace: bool
    ) -> LiveNode | None:
        """What is in the way of a rename and may be replaced; `node` itself where nothing moves."""
        check_name(name)
        above = self._folder(folder)
        while above.number != ROOT_NODE:
            if above.number == node.number:
                raise fault(errno.EINVAL, name)
            above = self._nodes[above.parent]
        found = self.child(folder, name)
        if found is None or (found.number == node.number and may_replace):
            return found
        if not may_replace:
            raise fault(errno.EEXIST, name)
        if found.type is NodeType.FOLDER and node.type is not NodeType.FOLDER:
            raise fault(errno.EISDIR, name)
        if found.type is not NodeType.FOLDER and node.type is NodeType.FOLDER:
            raise fault(errno.ENOTDIR, name)
        if self._folders.get(found.number):
            raise fault(errno.ENOTEMPTY, name)
        return found

    def _changed(self, folder: LiveNode) -> LiveNode:
        now = self._clock_ns()
        return replace(folder, mtime_ns=now, ctime_ns=now)

    def _commit(self, changed: Sequence[LiveNode], removed: Sequence[int] = ()) -> None:
        """On disk first, then in memory, there too at one moment."""
        if self.read_only:
            raise fault(errno.EROFS, b"")
        self._table.write(map(row_of, changed), removed)
        with self._memory:
            before = [self._nodes[node.number] for node in changed if node.number in self._nodes]
            for node in [*before, *(self._nodes[number] for number in removed)]:
                self._leave(node)
            for number in removed:
                del self._nodes[number]
            for node in changed:
                now = self._nodes.get(node.number)
                # Content may have been written while this waited for the disk.
                self._nodes[node.number] = (
                    with_latest_times(node, now) if node.number in self._dirty else node
                )
                self._enter(node)

    def _enter(self, node: LiveNode) -> None:
        if node.parent and node.number != ROOT_NODE:
            self._folders.setdefault(node.parent, {})[node.name] = node.number

    def _leave(self, node: LiveNode) -> None:
        siblings = self._folders.get(node.parent, {})
        siblings.pop(node.name, None)
        if not siblings:
            self._folders.pop(node.parent, None)
