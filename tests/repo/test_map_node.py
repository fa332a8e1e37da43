"""Map nodes: what is written is read, and a node that breaks a rule is damaged."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import FANOUT, HOLE, LEAF_BLOCKS
from backpoint_repo.map_node import Inner, decode_inner, decode_leaf, hole_leaf, leaf_of

ids = st.sampled_from([HOLE, b"a" * 32, bytes(31) + b"x"])


@given(st.integers(1, LEAF_BLOCKS), st.data())
def test_leaves_are_read_as_written(blocks: int, data: st.DataObject) -> None:
    starts = sorted({0, *data.draw(st.lists(st.integers(0, blocks - 1), max_size=9))})
    rows = data.draw(st.lists(ids, min_size=len(starts), max_size=len(starts)))
    leaf = decode_leaf(leaf_of(starts, rows, blocks).encode(), blocks)
    entries = [leaf.entry_at(at) for at in range(len(starts))]
    assert [entry[0] for entry in entries] == starts
    assert [entry[1] for entry in entries] == [*starts[1:], blocks]
    assert [entry[2] for entry in entries] == rows
    assert leaf.lengths.tolist() == [end - start for start, end, _ in entries]
    assert leaf.holes.tolist() == [row == HOLE for row in rows]
    assert leaf.allocated == sum(end - start for start, end, row in entries if row != HOLE)


def leaf_bytes(starts: list[int], blocks: int, level: int = 0, count: int | None = None) -> bytes:
    head = struct.pack("<BxHI", level, len(starts) if count is None else count, blocks)
    return head + b"".join(struct.pack("<H", s) for s in starts) + b"a" * 32 * len(starts)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        leaf_bytes([], 100),
        leaf_bytes([1], 100),
        leaf_bytes([0, 0], 100),
        leaf_bytes([0, 9, 5], 100),
        leaf_bytes([0, 100], 100),
        leaf_bytes([0], 99),
        leaf_bytes([0], 100, level=1),
        leaf_bytes([0], 100, count=2),
        leaf_bytes([0], 100) + b"x",
        leaf_bytes([0], 100)[:-1],
    ],
    ids=range(12),
)
def test_impossible_leaves(data: bytes) -> None:
    with pytest.raises(ObjectDamaged):
        decode_leaf(data, 100)


@given(st.binary(max_size=200), st.integers(1, LEAF_BLOCKS))
def test_garbage_is_damage_or_a_leaf(data: bytes, blocks: int) -> None:
    try:
        assert decode_leaf(data, blocks).encode()[:8] == data[:1] + b"\0" + data[2:8]
    except ObjectDamaged:
        return


def inner_bytes(level: int, allocated: list[int]) -> bytes:
    rows = np.full((len(allocated), 32), 7, np.uint8)
    return Inner(level, np.array(allocated, np.uint64), rows).encode()


@pytest.mark.parametrize("level", [1, 2, 3, 5])
def test_inner_nodes(level: int) -> None:
    most = LEAF_BLOCKS * FANOUT ** (level - 1)
    node = decode_inner(inner_bytes(level, [0, 1, most]), level, 3)
    assert node.allocated.tolist() == [0, 1, most]
    for data, children in [
        (inner_bytes(level, [most + 1]), 1),
        (inner_bytes(level, [2**64 - 1]), 1),
        (inner_bytes(level, [1, 1]), 1),
        (inner_bytes(level, [1, 1]), 3),
        (inner_bytes(level + 1, [1]), 1),
        (inner_bytes(level, [1] * (FANOUT + 1)), FANOUT + 1),
        (inner_bytes(level, [1])[:-1], 1),
        (inner_bytes(level, []), 0),
    ]:
        with pytest.raises(ObjectDamaged):
            decode_inner(data, level, children)


def test_a_leaf_of_zeros() -> None:
    leaf = hole_leaf(77)
    assert (leaf.allocated, leaf.entry_at(0)) == (0, (0, 77, HOLE))
