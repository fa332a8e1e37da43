"""One node of a disk map as bytes and as arrays.

A leaf covers 32 MiB of disk and lists where its chunks begin; an inner node lists its children.
Both are content-addressed like chunks. Everything read is untrusted: a node that breaks a rule is
damaged. Knows no stores and no trees.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import FANOUT, HOLE, ID_SIZE, LEAF_BLOCKS, NODE_HEADER

Ids = NDArray[np.uint8]
"""Shape (n, 32): content ids, a row each; a row of zeros is a hole."""


@dataclass(frozen=True)
class Leaf:
    """Chunks of up to 8192 blocks of disk.

    starts: (n,) uint16, first block of each entry within the leaf, beginning with 0.
    blocks: blocks the leaf covers; less than 8192 only in a disk's last leaf.
    """

    starts: NDArray[np.uint16]
    ids: Ids
    blocks: int
    starts_list: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts_list", self.starts.tolist())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) blocks of each entry."""
        starts = self.starts.astype(np.int64)
        return np.append(starts[1:], self.blocks) - starts

    @property
    def holes(self) -> NDArray[np.bool_]:
        """(n,) which entries are holes."""
        holes: NDArray[np.bool_] = (self.ids == 0).all(axis=1)
        return holes

    @property
    def allocated(self) -> int:
        """Blocks that are not holes."""
        return int(self.lengths[~self.holes].sum())

    def entry_at(self, index: int) -> tuple[int, int, bytes]:
        """(first block, end block, id) of entry `index`; the id is HOLE for zeros."""
        starts = self.starts_list
        end = starts[index + 1] if index + 1 < len(starts) else self.blocks
        return starts[index], end, self.ids[index].tobytes()

    def encode(self) -> bytes:
        """The plain bytes that are hashed and sealed."""
        head = NODE_HEADER.pack(0, len(self.starts), self.blocks)
        return head + self.starts.astype("<u2").tobytes() + self.ids.tobytes()


@dataclass(frozen=True)
class Inner:
    """Up to 256 children. allocated: (n,) uint64, blocks under each that are not holes."""

    level: int
    allocated: NDArray[np.uint64]
    ids: Ids

    def encode(self) -> bytes:
        """The plain bytes that are hashed and sealed."""
        head = NODE_HEADER.pack(self.level, len(self.allocated), 0)
        return head + self.allocated.astype("<u8").tobytes() + self.ids.tobytes()


def leaf_of(starts: list[int], ids: list[bytes], blocks: int) -> Leaf:
    """A leaf from Python lists."""
    rows = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, ID_SIZE)
    return Leaf(np.array(starts, np.uint16), rows, blocks)


def hole_leaf(blocks: int) -> Leaf:
    """A leaf of zeros."""
    return leaf_of([0], [HOLE], blocks)


def decode_leaf(data: bytes, blocks: int) -> Leaf:
    """A leaf that must cover `blocks`. Raises ObjectDamaged."""
    count, covered = _parse(data, 0, 2)
    starts = np.frombuffer(data, "<u2", count, NODE_HEADER.size).astype(np.uint16)
    ids = _ids(data, NODE_HEADER.size + 2 * count, count)
    rising = bool((starts[1:] > starts[:-1]).all())
    if covered != blocks or starts[0] != 0 or not rising or starts[-1] >= blocks:
        raise ObjectDamaged("a map leaf contradicts itself")
    return Leaf(starts, ids, blocks)


def decode_inner(data: bytes, level: int, children: int) -> Inner:
    """An inner node that must have this level and number of children. Raises ObjectDamaged."""
    count, _ = _parse(data, level, 8)
    if count != children or count > FANOUT:
        raise ObjectDamaged("an inner map node has the wrong number of children")
    allocated = np.frombuffer(data, "<u8", count, NODE_HEADER.size).astype(np.uint64)
    if bool((allocated > LEAF_BLOCKS * FANOUT ** (level - 1)).any()):
        raise ObjectDamaged("an inner map node claims more blocks than it covers")
    return Inner(level, allocated, _ids(data, NODE_HEADER.size + 8 * count, count))


def _parse(data: bytes, level: int, entry_size: int) -> tuple[int, int]:
    if len(data) < NODE_HEADER.size:
        raise ObjectDamaged("a map node is truncated")
    found, count, blocks = NODE_HEADER.unpack_from(data)
    size = NODE_HEADER.size + count * (entry_size + ID_SIZE)
    if found != level or not count or len(data) != size:
        raise ObjectDamaged("a map node has the wrong level or size")
    return count, blocks


def _ids(data: bytes, offset: int, count: int) -> Ids:
    return np.frombuffer(data, np.uint8, count * ID_SIZE, offset).reshape(-1, ID_SIZE)
