"""A set of 4 KiB blocks of a disk: bitmaps for stretches of 16 MiB, made where a block is in them.

Memory is bounded by the disk: at worst 45 MiB for 1 TiB, next to nothing for a stretch that is
empty or full. One thread changes a set at a time; others may look meanwhile without a lock, as
each change of a bitmap is one assignment. What being in a set means is for others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

BLOCK: Final = 4096
LEAF_BLOCKS: Final = 4096
LEAF_BYTES: Final = LEAF_BLOCKS // 8
FULL_LEAF: Final = b"\xff" * LEAF_BYTES
"""Shared by all full leaves, so that a disk that a guest trims whole costs a pointer a leaf."""
_EMPTY_LEAF: Final = bytes(LEAF_BYTES)
_FEW: Final = 16
"""Blocks of a leaf in the set up to which runs are cheaper to find in an integer
(1 us for each) than in an array (20 us)."""
_WINDOW: Final = 1024
"""Blocks for which an integer is always cheaper."""


class Run(NamedTuple):
    """Blocks [first, end) that are all in the set, or all not."""

    first: int
    end: int
    held: bool


class BlockSet:
    """See above. Numbers from 0 up."""

    __slots__ = ("_leaves",)

    def __init__(self) -> None:
        self._leaves: dict[int, bytes | bytearray] = {}

    def __bool__(self) -> bool:
        """False where nothing was ever added; an emptied leaf still counts."""
        return bool(self._leaves)

    def add(self, first: int, end: int) -> None:
        """The blocks [first, end)."""
        for number, start, stop in _leaf_spans(first, end):
            if stop - start == LEAF_BLOCKS:
                self._leaves[number] = FULL_LEAF
                continue
            leaf = self._leaves.get(number)
            if leaf is None:
                leaf = self._leaves[number] = bytearray(LEAF_BYTES)
            if isinstance(leaf, bytes):
                continue
            low, high = start >> 3, (stop + 7) >> 3
            bits = ((1 << (stop - start)) - 1) << (start & 7)
            bits |= int.from_bytes(leaf[low:high], "little")
            leaf[low:high] = bits.to_bytes(high - low, "little")

    def add_all(self, other: BlockSet) -> None:
        for number, leaf in other._leaves.items():
            mine = self._leaves.get(number, _EMPTY_LEAF)
            if leaf is FULL_LEAF or mine is FULL_LEAF:
                self._leaves[number] = FULL_LEAF
                continue
            both = int.from_bytes(mine, "little") | int.from_bytes(leaf, "little")
            self._leaves[number] = bytearray(both.to_bytes(LEAF_BYTES, "little"))

    def set_leaf(self, number: int, leaf: bytes) -> None:
        """LEAF_BYTES of bitmap, lowest block in the lowest bit."""
        self._leaves[number] = FULL_LEAF if leaf == FULL_LEAF else bytearray(leaf)

    def clear_from(self, first: int) -> None:
        """Take out all blocks from this one on."""
        edge, within = divmod(first, LEAF_BLOCKS)
        for number in [number for number in self._leaves if number >= edge + (within > 0)]:
            del self._leaves[number]
        leaf = self._leaves.get(edge)
        if leaf is not None:
            bits = int.from_bytes(leaf, "little") & ((1 << within) - 1)
            self._leaves[edge] = bytearray(bits.to_bytes(LEAF_BYTES, "little"))

    def copy(self) -> BlockSet:
        new = BlockSet()
        new._leaves = {
            number: leaf if leaf is FULL_LEAF else bytearray(leaf)
            for number, leaf in self._leaves.items()
        }
        return new

    def holds(self, first: int, end: int) -> bool:
        """Whether all of [first, end) is in the set."""
        for number, start, stop in _leaf_spans(first, end):
            leaf = self._leaves.get(number)
            if leaf is None or _bits(leaf, start, stop) != (1 << (stop - start)) - 1:
                return False
        return True

    def count(self, enough: int) -> int:
        """How many blocks are in the set; any number above `enough` may be told for more."""
        total = 0
        for leaf in self._leaves.values():
            total += (
                LEAF_BLOCKS if leaf is FULL_LEAF else int.from_bytes(leaf, "little").bit_count()
            )
            if total > enough:
                break
        return total

    def leaves(self) -> list[tuple[int, bytes | bytearray]]:
        """(number, bitmap) of those that are there, in order."""
        return sorted(self._leaves.items())

    def end(self) -> int:
        """One more than the highest block in the set; 0 for none."""
        for number, leaf in reversed(self.leaves()):
            bits = int.from_bytes(leaf, "little")
            if bits:
                return number * LEAF_BLOCKS + bits.bit_length()
        return 0

    def held_runs(self) -> Iterator[tuple[int, int]]:
        """[first, end) of all stretches in the set, in order, not touching one another."""
        last: tuple[int, int] | None = None
        for number, _ in self.leaves():
            for run in self.leaf_runs(number):
                if last is not None and last[1] == run.first:
                    last = (last[0], run.end)
                    continue
                if last is not None:
                    yield last
                last = (run.first, run.end)
        if last is not None:
            yield last

    def leaf_runs(self, number: int) -> Iterator[Run]:
        """What of this leaf is in the set."""
        base, leaf = number * LEAF_BLOCKS, self._leaves[number]
        bits = int.from_bytes(leaf, "little")
        if bits.bit_count() > _FEW:
            runs = _runs_of_array(leaf, base, 0, LEAF_BLOCKS)
            return (run for run in runs if run.held)
        return iter(_held_in_bits(bits, base))

    def runs(self, first: int, end: int) -> Iterator[Run]:
        """Cover [first, end) in order. Runs of one kind may touch where a leaf ends."""
        for number, start, stop in _leaf_spans(first, end):
            base = number * LEAF_BLOCKS
            leaf = self._leaves.get(number)
            if leaf is None or leaf is FULL_LEAF:
                yield Run(base + start, base + stop, leaf is not None)
                continue
            bits = _bits(leaf, start, stop)
            if stop - start <= _WINDOW or bits.bit_count() <= _FEW:
                yield from _runs_of_bits(bits, base + start, base + stop)
            else:
                yield from _runs_of_array(leaf, base, start, stop)


def bit_count(leaf: bytes | bytearray) -> int:
    return int.from_bytes(leaf, "little").bit_count()


def _leaf_spans(first: int, end: int) -> list[tuple[int, int, int]]:
    """(leaf, first block in it, end in it) of a range of blocks."""
    number, start = divmod(first, LEAF_BLOCKS)
    left = end - first
    if 0 < left <= LEAF_BLOCKS - start:
        return [(number, start, start + left)]
    spans = []
    while left > 0:
        stop = min(LEAF_BLOCKS, start + left)
        spans.append((number, start, stop))
        left -= stop - start
        number, start = number + 1, 0
    return spans


def _bits(leaf: bytes | bytearray, start: int, stop: int) -> int:
    window = int.from_bytes(leaf[start >> 3 : (stop + 7) >> 3], "little") >> (start & 7)
    return window & ((1 << (stop - start)) - 1)


def _runs_of_bits(bits: int, first: int, end: int) -> Iterator[Run]:
    """The lowest bit is block `first`; there are none from `end` on."""
    while first < end:
        held = bool(bits & 1)
        # The lowest bit of the other kind ends the run.
        other = ~bits if held else bits
        length = (other & -other).bit_length() - 1 if other else end - first
        yield Run(first, first + length, held)
        first += length
        bits >>= length


def _held_in_bits(bits: int, first: int) -> list[Run]:
    found = []
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        length = (~bits & (bits + 1)).bit_length() - 1
        bits >>= length
        first += skipped
        found.append(Run(first, first + length, held=True))
        first += length
    return found


def _runs_of_array(leaf: bytes | bytearray, base: int, start: int, stop: int) -> Iterator[Run]:
    bits = np.unpackbits(np.frombuffer(bytes(leaf), np.uint8), bitorder="little")[start:stop]
    edges = (np.flatnonzero(bits[1:] != bits[:-1]) + 1).tolist()
    held = bool(bits[0])
    for low, high in zip([0, *edges], [*edges, stop - start], strict=True):
        yield Run(base + start + low, base + start + high, held)
        held = not held
