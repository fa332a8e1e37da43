"""Subvolumes: which there are, where they are linked, which one is mounted by default.

Decides from the tree of roots alone and from the folders that links name; reads no content.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from backpoint_fusefs.guest.filesystem import FileId, GuestDamaged, GuestUnsupported
from backpoint_fusefs.guest.parsers.btrfs.items import (
    DIR_ITEM,
    INODE_REF,
    ROOT_ITEM,
    ROOT_REF,
    Parent,
    Root,
    parse_inode_ref,
    parse_named,
    parse_root,
    parse_root_ref,
)
from backpoint_fusefs.guest.parsers.btrfs.node import NodeReader
from backpoint_fusefs.guest.parsers.btrfs.tree import (
    AFTER_SUBVOLUMES,
    FIRST_FREE,
    FS_TREE,
    Tree,
    is_subvolume,
)

ROOT_FOLDER: Final = FIRST_FREE
_ROOT_TREE_DIR: Final = 6
_TREES_KEPT: Final = 1024

_LISTED_MAX: Final = 100_000
# PATH_MAX: no mount option can name a longer one.
_PATH_MAX: Final = 4096
_PATHS_BYTES_MAX: Final = 64 << 20
# Look-ups to find the paths of folders that have subvolumes.
_STEPS_MAX: Final = 1_000_000


class Subvolumes:
    """Of one filesystem, by its tree of roots."""

    def __init__(self, nodes: NodeReader, roots: Tree) -> None:
        self._nodes = nodes
        self._roots = roots
        self._trees: OrderedDict[int, Tree] = OrderedDict()

    def tree(self, number: int) -> Tree:
        """Raises GuestDamaged where there is no such subvolume."""
        known = self._trees.get(number)
        if known is not None:
            self._trees.move_to_end(number)
            return known
        root = self._root(number)
        if root is None:
            raise GuestDamaged(f"there is no subvolume {number}")
        self._trees[number] = tree = Tree(self._nodes, number, root.root)
        if len(self._trees) > _TREES_KEPT:
            self._trees.popitem(last=False)
        return tree

    def default(self) -> int:
        """What a mount shows that names none."""
        low, high = (_ROOT_TREE_DIR, DIR_ITEM, 0), (_ROOT_TREE_DIR, DIR_ITEM + 1, 0)
        for _, data in self._roots.items(low, high):
            for name, _, number in parse_named(data):
                if name == b"default":
                    return number
        return FS_TREE

    def is_linked(self, parent: int, folder: int, name: bytes, number: int) -> bool:
        """Whether an entry shows that subvolume. A snapshot has entries for the subvolumes that
        were inside; only the original links them."""
        data = self._roots.get((parent, ROOT_REF, number))
        if data is None or parse_root_ref(data) != Parent(folder, name):
            return False
        return self._root(number) is not None

    def paths(self) -> dict[bytes, FileId]:
        """Of all that are linked, from the top of the filesystem."""
        alive, links = self._all()
        folders = _FolderPaths()
        listed = {b"": FileId(FS_TREE, ROOT_FOLDER)}
        seen = {FS_TREE}
        room = _PATHS_BYTES_MAX
        waiting = [(b"", FS_TREE)]
        while waiting:
            prefix, parent = waiting.pop()
            for number, link in links.get(parent, ()):
                if number in seen:
                    raise GuestDamaged(f"the subvolume {number} is linked twice")
                seen.add(number)
                within = folders.path(self.tree(parent), link.folder)
                if within is None or number not in alive:
                    continue
                path = prefix + within + link.name
                room -= len(path)
                if room < 0:
                    raise GuestDamaged("the paths of its subvolumes are impossibly long")
                listed[path] = FileId(number, ROOT_FOLDER)
                waiting.append((path + b"/", number))
        return listed

    def _root(self, number: int) -> Root | None:
        """None: deleted, or never was."""
        if not is_subvolume(number):
            return None
        newest: bytes | None = None
        # A snapshot's key has the transaction that made it.
        for _, data in self._roots.items((number, ROOT_ITEM, 0), (number, ROOT_ITEM + 1, 0)):
            newest = data
        if newest is None:
            return None
        root = parse_root(newest)
        return None if root.dead else root

    def _all(self) -> tuple[set[int], dict[int, list[tuple[int, Parent]]]]:
        """Subvolumes that are not deleted; of each, those that are linked below it."""
        alive: set[int] = set()
        links: dict[int, list[tuple[int, Parent]]] = {}
        count = 0
        for item, data in self._roots.items((FS_TREE, 0, 0), (AFTER_SUBVOLUMES, 0, 0)):
            number, kind, child, _, _ = item
            if kind == ROOT_ITEM and not parse_root(data).dead:
                alive.add(number)
            elif kind == ROOT_REF:
                links.setdefault(number, []).append((child, parse_root_ref(data)))
                count += 1
            if max(count, len(alive)) > _LISTED_MAX:
                raise GuestUnsupported(f"it has more than {_LISTED_MAX} subvolumes")
        return alive, links


class _FolderPaths:
    """Paths of folders within their subvolumes, from their references to their parents."""

    def __init__(self) -> None:
        self._known: dict[tuple[Tree, int], bytes | None] = {}
        self._steps = _STEPS_MAX

    def path(self, tree: Tree, folder: int) -> bytes | None:
        """With a slash at its end unless empty; None where it is longer than a path can be."""
        key = (tree, folder)
        if key not in self._known:
            self._known[key] = self._find(tree, folder)
        return self._known[key]

    def _find(self, tree: Tree, folder: int) -> bytes | None:
        path = b""
        while folder != ROOT_FOLDER:
            self._steps -= 1
            if self._steps < 0:
                raise GuestDamaged("the folders of its subvolumes are impossibly deep")
            found = next(tree.items((folder, INODE_REF, 0), (folder, INODE_REF + 1, 0)), None)
            if found is None:
                raise GuestDamaged(f"the folder {folder} is nowhere")
            item, data = found
            path = parse_inode_ref(data) + b"/" + path
            if len(path) > _PATH_MAX:
                return None
            folder = item[2]
        return path
