"""One B-tree: its items by key, singly, by range or many at once.

Decides whether a node fits its place: level, generation, owner, first key and last key as its
parent says. As levels fall and a node holds the very keys its parent gave it, no node comes twice
in one walk, whatever the bytes are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.btrfs.node import Item, Key, Node, NodeReader
from backpoint_fusefs.guest.parsers.btrfs.superblock import TreeRoot

FS_TREE: Final = 5
FIRST_FREE: Final = 256
AFTER_SUBVOLUMES: Final = (1 << 64) - 255
_AFTER_ALL: Final[Key] = (1 << 64, 0, 0)

# Leaves that are fetched together, 16 KiB each by default: a read of 512 KiB.
_BATCH: Final = 32


def is_subvolume(tree: int) -> bool:
    """Whether this is the number of a tree of files."""
    return tree == FS_TREE or FIRST_FREE <= tree < AFTER_SUBVOLUMES


class Tree:
    """number: the tree's objectid; for a subvolume, its id."""

    def __init__(self, nodes: NodeReader, number: int, root: TreeRoot) -> None:
        self._nodes = nodes
        self._number = number
        self._root = root

    def get(self, key: Key) -> bytes | None:
        """The data of one item."""
        for leaf, first, end in self.spans(key, (key[0], key[1], key[2] + 1)):
            for item in leaf.items[first:end]:
                return leaf.data(item)
        return None

    def items(self, low: Key, high: Key) -> Iterator[tuple[Item, bytes]]:
        """Items with low <= key < high, in order."""
        for leaf, first, end in self.spans(low, high):
            for item in leaf.items[first:end]:
                yield item, leaf.data(item)

    def spans(self, low: Key, high: Key) -> Iterator[tuple[Node, int, int]]:
        """Leaves with items of low <= key < high, and which of their items these are."""
        for leaf in self._leaves(self._top(), low, high, _AFTER_ALL):
            first = bisect_left(leaf.items, low)
            end = bisect_left(leaf.items, high, first)
            if first < end:
                yield leaf, first, end

    def floor(self, key: Key) -> Key | None:
        """The last key that is not after this one."""
        node = self._top()
        upper = _AFTER_ALL
        while True:
            slot = _slot(node, key)
            if slot < 0:
                return None
            item = node.items[slot]
            if not node.level:
                return item[:3]
            following = _following(node, slot, upper)
            node, upper = self._child(node, item, following), following

    def many(self, keys: Sequence[Key]) -> Iterator[tuple[int, Node, Item]]:
        """Of keys in ascending order: (which, leaf, item) of each that is there. A part of the tree
        that cannot be read counts as empty."""
        for leaf, first, end in self._spread(self._top(), keys, 0, len(keys), _AFTER_ALL):
            slot = 0
            for which in range(first, end):
                key = keys[which]
                slot = bisect_left(leaf.items, key, slot)
                if slot < len(leaf.items) and leaf.items[slot][:3] == key:
                    yield which, leaf, leaf.items[slot]

    def _top(self) -> Node:
        node = self._nodes.node(self._root.address)
        if (node.level, node.generation) != (self._root.level, self._root.generation):
            raise GuestDamaged(f"the root of tree {self._number} is not the one expected")
        self._check_owner(node)
        return node

    def _child(self, parent: Node, item: Item, upper: Key) -> Node:
        node = self._nodes.node(item[3])
        if (
            node.level != parent.level - 1
            or node.generation != item[4]
            or not node.items
            or node.items[0][:3] != item[:3]
            or node.items[-1][:3] >= upper
        ):
            raise GuestDamaged(f"the node at address {item[3]} does not fit where it is used")
        self._check_owner(node)
        return node

    def _check_owner(self, node: Node) -> None:
        # Snapshots share nodes, which name the subvolume that wrote them.
        shared = is_subvolume(self._number) and is_subvolume(node.owner)
        if node.owner != self._number and not shared:
            raise GuestDamaged(f"the node at address {node.address} belongs to another tree")

    def _leaves(self, node: Node, low: Key, high: Key, upper: Key) -> Iterator[Node]:
        if not node.level:
            yield node
            return
        slots = range(max(_slot(node, low), 0), bisect_left(node.items, high))
        for start in range(0, len(slots), _BATCH):
            batch = slots[start : start + _BATCH]
            self._fetch(node, batch)
            for slot in batch:
                following = _following(node, slot, upper)
                child = self._child(node, node.items[slot], following)
                yield from self._leaves(child, low, high, following)

    def _spread(
        self, node: Node, keys: Sequence[Key], first: int, end: int, upper: Key
    ) -> Iterator[tuple[Node, int, int]]:
        """Leaves with the part of the keys that each may hold."""
        if not node.level:
            yield node, first, end
            return
        parts: list[tuple[int, int, int]] = []
        while first < end:
            slot = max(_slot(node, keys[first]), 0)
            part_end = bisect_left(keys, _following(node, slot, upper), first, end)
            parts.append((slot, first, part_end))
            first = part_end
        for start in range(0, len(parts), _BATCH):
            batch = parts[start : start + _BATCH]
            self._fetch(node, [slot for slot, _, _ in batch])
            for slot, part, part_end in batch:
                following = _following(node, slot, upper)
                try:
                    child = self._child(node, node.items[slot], following)
                except GuestDamaged:
                    continue
                yield from self._spread(child, keys, part, part_end, following)

    def _fetch(self, node: Node, slots: Sequence[int]) -> None:
        if node.level == 1 and len(slots) > 1:
            self._nodes.fetch(node.items[slot][3] for slot in slots)


def _slot(node: Node, key: Key) -> int:
    """Of the last item whose key is not after this one; -1 where all are."""
    return bisect_left(node.items, (key[0], key[1], key[2] + 1)) - 1


def _following(node: Node, slot: int, upper: Key) -> Key:
    """The key before which everything below this slot is."""
    return node.items[slot + 1][:3] if slot + 1 < len(node.items) else upper
