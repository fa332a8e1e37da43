"""Blocks of a fork's metadata (names, attributes) by their place in the fork.

Decides how fragmented metadata is gathered: many mappings in few reads. Knows no structure in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.xfs.block_reader import BlockReader, Span
from backpoint_fusefs.guest.parsers.xfs.extent_map import mappings
from backpoint_fusefs.guest.parsers.xfs.inode import Fork

_PARTS_AT_ONCE: Final = 256
"""1 MiB of 4 KiB blocks, 16 of the largest."""


class Unit(NamedTuple):
    """One or several filesystem blocks that are one block of metadata. first: the number of the
    first in the fork; at: its byte on the volume."""

    first: int
    at: int
    data: bytes


class _Part(NamedTuple):
    first: int
    blocks: int
    at: int


def units(
    reader: BlockReader, owner: int, fork: Fork, unit_blocks: int, first: int, end: int
) -> Iterator[Unit]:
    """All that is mapped in blocks [first, end), which are whole units; holes are left out."""
    waiting: list[_Part] = []
    for part in _parts(reader, owner, fork, unit_blocks, first, end):
        full = len(waiting) >= _PARTS_AT_ONCE
        if full and part.first // unit_blocks != waiting[-1].first // unit_blocks:
            yield from _joined(reader, owner, waiting, unit_blocks)
            waiting = []
        waiting.append(part)
    yield from _joined(reader, owner, waiting, unit_blocks)


def _parts(
    reader: BlockReader, owner: int, fork: Fork, unit_blocks: int, first: int, end: int
) -> Iterator[_Part]:
    """The mappings, cut where units end."""
    size = reader.superblock.block_size
    for mapping in mappings(reader, owner, fork, first, end):
        if mapping.unwritten:
            raise GuestDamaged(f"metadata of inode {owner} was never written")
        block, stop = max(mapping.first, first), min(mapping.first + mapping.blocks, end)
        while block < stop:
            count = min(stop - block, unit_blocks - block % unit_blocks)
            yield _Part(block, count, mapping.at + (block - mapping.first) * size)
            block += count


def _joined(
    reader: BlockReader, owner: int, parts: list[_Part], unit_blocks: int
) -> Iterator[Unit]:
    size = reader.superblock.block_size
    datas = iter(reader.read_many([Span(part.at, part.blocks * size) for part in parts]))
    for _, of_unit in groupby(parts, lambda part: part.first // unit_blocks):
        own = list(of_unit)
        if sum(part.blocks for part in own) != unit_blocks:
            raise GuestDamaged(f"a block of inode {owner}'s metadata is partly missing")
        yield Unit(own[0].first, own[0].at, b"".join(next(datas) for _ in own))
