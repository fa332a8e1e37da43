"""How a set of blocks is written down, in a log's records and in a map's snapshot alike.

Little-endian: u32 number of leaves, then each leaf, in rising order, as
u32 number, u16 form, u16 count, and by its form
    0  full: nothing more, count 0
    1  runs: `count` times u16 first block, u16 length - 1; rising, not touching, inside the leaf
    2  bitmap: 512 bytes, lowest block in the lowest bit, count 0.
A leaf is 4096 blocks. Only the form is decided here; checksums are for those who store it.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from backpoint_fusefs.live.overlay.block_set import (
    FULL_LEAF,
    LEAF_BLOCKS,
    LEAF_BYTES,
    BlockSet,
    bit_count,
)

_Numbers = npt.NDArray[np.int64]
_COUNT: Final = struct.Struct("<I")
_LEAF: Final = struct.Struct("<IHH")
_RUN: Final = struct.Struct("<HH")
_FULL: Final = 0
_RUNS: Final = 1
_BITMAP: Final = 2
_RUNS_MAX: Final = LEAF_BYTES // _RUN.size
"""More runs than this take more room than the bitmap."""


def encode_blocks(blocks: BlockSet) -> bytes:
    parts = [_encode_leaf(blocks, number, leaf) for number, leaf in blocks.leaves()]
    parts = [part for part in parts if part]
    return _COUNT.pack(len(parts)) + b"".join(parts)


def decode_blocks(form: bytes | memoryview, end: int) -> BlockSet:
    """Raises ValueError where it is not what `encode_blocks` makes, or tells of a block from `end`
    on."""
    blocks = BlockSet()
    try:
        (leaves,) = _COUNT.unpack_from(form)
        at, after = _COUNT.size, 0
        for _ in range(leaves):
            number, kind, count = _LEAF.unpack_from(form, at)
            at += _LEAF.size
            if number < after or number * LEAF_BLOCKS >= end:
                raise ValueError("leaves are not in order or lie behind the disk's end")
            after = number + 1
            at += _decode_leaf(
                blocks, number, kind, form[at : at + _body_length(kind, count)], count
            )
    except struct.error as error:
        raise ValueError("a set of blocks is cut short") from error
    if at != len(form) or blocks.end() > end:
        raise ValueError("a set of blocks has more than it should")
    return blocks


def _encode_leaf(blocks: BlockSet, number: int, leaf: bytes | bytearray) -> bytes:
    """Nothing for an empty one."""
    if leaf == FULL_LEAF:
        return _LEAF.pack(number, _FULL, 0)
    if bit_count(leaf) > _RUNS_MAX:
        firsts, ends = _edges(leaf)
        if len(firsts) > _RUNS_MAX:
            return _LEAF.pack(number, _BITMAP, 0) + leaf
        runs = np.stack([firsts, ends - firsts - 1], axis=1).astype("<u2").tobytes()
    else:
        base = number * LEAF_BLOCKS
        found = blocks.leaf_runs(number)
        runs = b"".join(_RUN.pack(run.first - base, run.end - run.first - 1) for run in found)
    return _LEAF.pack(number, _RUNS, len(runs) // _RUN.size) + runs if runs else b""


def _edges(leaf: bytes | bytearray) -> tuple[_Numbers, _Numbers]:
    """First blocks of the runs in the leaf, and their ends."""
    bits = np.unpackbits(np.frombuffer(bytes(leaf), np.uint8), bitorder="little")
    edges = np.flatnonzero(np.diff(np.concatenate(([0], bits, [0])).astype(np.int8)))
    return edges[0::2], edges[1::2]


def _body_length(kind: int, count: int) -> int:
    return {_FULL: 0, _RUNS: count * _RUN.size, _BITMAP: LEAF_BYTES}.get(kind, 0)


def _decode_leaf(
    blocks: BlockSet, number: int, kind: int, body: bytes | memoryview, count: int
) -> int:
    """Bytes taken."""
    if len(body) != _body_length(kind, count):
        raise ValueError("a set of blocks is cut short")
    if kind == _RUNS:
        _add_runs(blocks, number * LEAF_BLOCKS, body)
    elif kind == _FULL and not count:
        blocks.set_leaf(number, FULL_LEAF)
    elif kind == _BITMAP and not count:
        blocks.set_leaf(number, bytes(body))
    else:
        raise ValueError("a leaf of an unknown form")
    return len(body)


def _add_runs(blocks: BlockSet, base: int, body: bytes | memoryview) -> None:
    after = 0
    for first, less_one in _RUN.iter_unpack(body):
        if first < after or first + less_one >= LEAF_BLOCKS:
            raise ValueError("runs are not in order or leave their leaf")
        after = first + less_one + 1
        blocks.add(base + first, base + after)
