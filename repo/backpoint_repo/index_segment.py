"""An index segment: an immutable sorted table from content id to the place of its blob.

44 bytes an entry, as arrays that numpy searches in place. It is a cache of pack directories and can
be rebuilt from them. Knows its own layout and look-up; which segments exist is `index.py`'s
business.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import ID_SIZE, Kind
from backpoint_repo.map_node import Ids
from backpoint_repo.prefix_fence import PrefixFence

PACK_NAME_SIZE: Final = 16
_HEAD: Final = struct.Struct("<II")  # entries, packs
_PREFIX: Final = 8
_REST: Final = ID_SIZE - _PREFIX
_ENTRY_SIZE: Final = ID_SIZE + 12
_ALL: Final = slice(None)
_STEPS_MAX: Final = 8
"""Copies of an id that `find` steps through for all queries at once; more are somebody's mischief,
and are then looked at per id, all of them together."""


class PackRef(NamedTuple):
    """Names a pack: its kind and its 16-byte random name."""

    kind: Kind
    name: bytes


class Location(NamedTuple):
    """Where a blob lies: `length` bytes from `offset` of a pack."""

    pack: PackRef
    offset: int
    length: int


@dataclass(frozen=True, eq=False)
class IndexTable:
    """Entries sorted by id. All arrays have n entries; `packs` is what pack numbers refer to.

    prefixes: uint64, the first 8 bytes of each id as a big-endian number (so order is kept).
    rests: (n, 24) uint8, the other bytes. pack_numbers, offsets, lengths: uint32. Arrays may be
    read-only. mapping: the file they are mapped from, where they are. Equal and hashed as an
    object, not by content.
    """

    packs: tuple[PackRef, ...]
    prefixes: NDArray[np.uint64]
    rests: NDArray[np.uint8]
    pack_numbers: NDArray[np.uint32]
    offsets: NDArray[np.uint32]
    lengths: NDArray[np.uint32]
    mapping: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.prefixes)

    def find(self, ids: Ids, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(m,) row of each id, -1 where it is absent or only in packs that are not usable.

        usable: (packs,) which packs may be answered.
        """
        wanted = prefixes_of(ids)
        rows = self._fence.first_rows(wanted)
        found = np.full(len(ids), -1, np.int64)
        open_queries = np.arange(len(ids))
        for _ in range(_STEPS_MAX):
            at = rows[open_queries]
            inside = at < len(self.prefixes)
            open_queries, at = open_queries[inside], at[inside]
            same = self.prefixes[at] == wanted[open_queries]
            open_queries, at = open_queries[same], at[same]
            hit = (self.rests[at] == ids[open_queries, _PREFIX:]).all(axis=1)
            hit &= usable[self.pack_numbers[at]]
            found[open_queries[hit]] = at[hit]
            open_queries = open_queries[~hit]
            if not len(open_queries):
                return found
            rows[open_queries] += 1
        found[open_queries] = self._find_among_many(ids[open_queries], usable)
        return found

    @cached_property
    def _fence(self) -> PrefixFence:
        fence = PrefixFence(self.prefixes)
        self.let_go()
        return fence

    def _find_among_many(self, ids: Ids, usable: NDArray[np.bool_]) -> list[int]:
        """`find` for ids of which there are, or seem to be, many copies."""
        rows: dict[bytes, int] = {}
        for at, row in enumerate(ids):
            if row.tobytes() not in rows:
                copies = self.find_all(ids[at : at + 1])
                copies = copies[usable[self.pack_numbers[copies]]]
                rows[row.tobytes()] = int(copies[0]) if len(copies) else -1
        return [rows[row.tobytes()] for row in ids]

    def find_all(self, ids: Ids) -> NDArray[np.int64]:
        """Every row, rising, whose id is among `ids`: all copies of each. Ids may repeat."""
        wanted = prefixes_of(ids)
        first = np.searchsorted(self.prefixes, wanted, "left")
        counts = np.searchsorted(self.prefixes, wanted, "right") - first
        query = np.repeat(np.arange(len(ids)), counts)
        step = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = first[query] + step
        same = (self.rests[rows] == ids[query, _PREFIX:]).all(axis=1)
        return np.unique(rows[same]).astype(np.int64)

    def rows_of(self, content_id: bytes) -> list[int]:
        """Every row that holds this id."""
        prefix = np.uint64(int.from_bytes(content_id[:_PREFIX], "big"))
        first = int(np.searchsorted(self.prefixes, prefix, "left"))
        last = int(np.searchsorted(self.prefixes, prefix, "right"))
        rest = content_id[_PREFIX:]
        return [row for row in range(first, last) if self.rests[row].tobytes() == rest]

    def location(self, row: int) -> Location:
        """The place that a row names."""
        pack = self.packs[self.pack_numbers[row]]
        return Location(pack, int(self.offsets[row]), int(self.lengths[row]))

    def ids(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice = _ALL) -> Ids:
        """(m, 32) ids of some rows, or all of them, sorted."""
        first = self.prefixes[rows].astype(">u8").view(np.uint8).reshape(-1, _PREFIX)
        return np.concatenate((first, self.rests[rows]), axis=1)

    def pack_ends(self) -> NDArray[np.int64]:
        """(packs,) how many bytes each pack must have at least, by what is said to lie in it."""
        ends = np.zeros(len(self.packs), np.int64)
        np.maximum.at(ends, self.pack_numbers, self.offsets.astype(np.int64) + self.lengths)
        return ends

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> IndexTable:
        """A table of some rows, which must rise, in memory of its own unless they are a slice."""
        return IndexTable(
            self.packs,
            self.prefixes[rows],
            self.rests[rows],
            self.pack_numbers[rows],
            self.offsets[rows],
            self.lengths[rows],
        )

    def without(self, packs: Collection[PackRef]) -> IndexTable:
        """The entries of all other packs; only those packs are listed that still have one."""
        kept = np.array([pack not in packs for pack in self.packs], np.bool_)
        if kept.all():
            return self
        part = self.take(kept[self.pack_numbers])
        number = (np.cumsum(kept) - 1).astype(np.uint32)
        left = tuple(pack for pack, keep in zip(self.packs, kept, strict=True) if keep)
        return replace(part, packs=left, pack_numbers=number[part.pack_numbers])

    def let_go(self) -> None:
        """What was read of a mapped file is not our memory any more; it is read again if needed."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)

    def encode(self) -> bytes:
        """The plain payload of a segment."""
        head = _HEAD.pack(len(self), len(self.packs))
        packs = b"".join(bytes([pack.kind]) + pack.name for pack in self.packs)
        numbers = (self.pack_numbers, self.offsets, self.lengths)
        return b"".join(
            (
                head,
                self.prefixes.astype("<u8").tobytes(),
                self.rests.tobytes(),
                *(array.astype("<u4").tobytes() for array in numbers),
                packs,
            )
        )


_NO_NUMBERS: Final = np.zeros(0, np.uint32)
EMPTY_TABLE: Final = IndexTable(
    (),
    np.zeros(0, np.uint64),
    np.zeros((0, _REST), np.uint8),
    _NO_NUMBERS,
    _NO_NUMBERS,
    _NO_NUMBERS,
)


def prefixes_of(ids: Ids) -> NDArray[np.uint64]:
    """(m,) the first 8 bytes of each id as a number."""
    first = np.ascontiguousarray(ids[:, :_PREFIX]).view(">u8").reshape(-1)
    return first.astype(np.uint64)


def build_table(
    packs: list[PackRef],
    ids: Ids,
    pack_numbers: NDArray[np.uint32],
    offsets: NDArray[np.uint32],
    lengths: NDArray[np.uint32],
) -> IndexTable:
    """A table from unsorted columns of equal length."""
    order = np.lexsort((pack_numbers, prefixes_of(ids)))
    return IndexTable(
        tuple(packs),
        prefixes_of(ids)[order],
        np.ascontiguousarray(ids[order, _PREFIX:]),
        pack_numbers[order],
        offsets[order],
        lengths[order],
    )


def merge_tables(tables: list[IndexTable]) -> IndexTable:
    """One table with the entries of all; a copy listed twice is kept once."""
    packs = list(dict.fromkeys(pack for table in tables for pack in table.packs))
    number = {pack: at for at, pack in enumerate(packs)}
    renumbered = []
    for table in tables:
        map_ = np.array([number[pack] for pack in table.packs], np.uint32)
        renumbered.append(map_[table.pack_numbers] if len(table.packs) else table.pack_numbers)
    merged = build_table(
        packs,
        np.concatenate([table.ids() for table in tables]),
        np.concatenate(renumbered),
        np.concatenate([table.offsets for table in tables]),
        np.concatenate([table.lengths for table in tables]),
    )
    return _without_repeats(merged)


def _without_repeats(table: IndexTable) -> IndexTable:
    """Two segments may list the same pack (an adopted orphan); its entries need be there once.

    Rows are repeats only when all of them is equal: a forged row must not push out a true one.
    """
    same = np.zeros(len(table), np.bool_)
    same[1:] = (
        (table.prefixes[1:] == table.prefixes[:-1])
        & (table.pack_numbers[1:] == table.pack_numbers[:-1])
        & (table.offsets[1:] == table.offsets[:-1])
        & (table.lengths[1:] == table.lengths[:-1])
    )
    at = np.flatnonzero(same)
    same[at] = (table.rests[at] == table.rests[at - 1]).all(axis=1)
    if not same.any():
        return table
    return table.take(~same)


def decode_table(payload: bytes | memoryview, key: str) -> IndexTable:
    """A table that stands on `payload` and copies nothing but the packs' names.

    Raises ObjectDamaged where sizes, order or pack numbers are impossible.
    """
    if len(payload) < _HEAD.size:
        raise ObjectDamaged(f"{key}: truncated")
    entries, pack_count = _HEAD.unpack_from(payload)
    packs_at = _HEAD.size + entries * _ENTRY_SIZE
    if len(payload) != packs_at + pack_count * (1 + PACK_NAME_SIZE):
        raise ObjectDamaged(f"{key}: has the wrong size")
    prefixes = np.frombuffer(payload, "<u8", entries, _HEAD.size)
    rests_at = _HEAD.size + entries * _PREFIX
    rests = np.frombuffer(payload, np.uint8, entries * _REST, rests_at).reshape(-1, _REST)
    numbers = np.frombuffer(payload, "<u4", 3 * entries, rests_at + entries * _REST)
    columns = numbers.reshape(3, -1)
    packs = _decode_packs(bytes(payload[packs_at:]), key)
    if bool((prefixes[1:] < prefixes[:-1]).any()) or bool((columns[0] >= pack_count).any()):
        raise ObjectDamaged(f"{key}: is not sorted or names a pack it does not list")
    source = payload.obj if isinstance(payload, memoryview) else None
    mapping = source if isinstance(source, mmap.mmap) else None
    return IndexTable(packs, prefixes, rests, columns[0], columns[1], columns[2], mapping)


def _decode_packs(data: bytes, key: str) -> tuple[PackRef, ...]:
    packs = []
    for at in range(0, len(data), 1 + PACK_NAME_SIZE):
        if data[at] not in (Kind.DATA_PACK, Kind.NODE_PACK):
            raise ObjectDamaged(f"{key}: names an object that is no pack")
        packs.append(PackRef(Kind(data[at]), data[at + 1 : at + 1 + PACK_NAME_SIZE]))
    return tuple(packs)
