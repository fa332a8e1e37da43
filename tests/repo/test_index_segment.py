"""Index tables against plain dictionaries, with ids that share their first eight bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import Kind
from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import (
    IndexTable,
    Location,
    PackRef,
    build_table,
    decode_table,
    merge_tables,
)

PACKS = [PackRef(Kind.DATA_PACK, bytes([n]) * 16) for n in range(4)] + [
    PackRef(Kind.NODE_PACK, bytes([9]) * 16)
]
IDS = [prefix * 8 + rest * 24 for prefix in (b"\0", b"\1", b"\xff") for rest in (b"\0", b"a", b"b")]
Row = tuple[bytes, PackRef, int, int]

rows_of_ids = st.lists(
    st.tuples(
        st.sampled_from(IDS),
        st.sampled_from(PACKS),
        st.integers(0, 5),
        st.integers(0, 3),
    ),
    max_size=25,
)


def table_of(rows: list[Row]) -> IndexTable:
    packs = list(dict.fromkeys(pack for _, pack, _, _ in rows))
    return build_table(
        packs,
        ids_of([row[0] for row in rows]),
        np.array([packs.index(row[1]) for row in rows], np.uint32),
        np.array([row[2] for row in rows], np.uint32),
        np.array([row[3] for row in rows], np.uint32),
    )


def rows_in(table: IndexTable) -> list[Row]:
    ids = table.ids()
    places = [table.location(row) for row in range(len(table))]
    return [
        (ids[at].tobytes(), place.pack, place.offset, place.length)
        for at, place in enumerate(places)
    ]


@given(rows_of_ids, st.sets(st.sampled_from(PACKS)))
def test_look_ups(rows: list[Row], forbidden: set[PackRef]) -> None:
    table = decode_table(table_of(rows).encode(), "index/x")
    assert sorted(rows_in(table)) == sorted(rows)
    usable = np.array([pack not in forbidden for pack in table.packs], np.bool_)
    found = table.find(ids_of(IDS), usable)
    for content_id, row in zip(IDS, found.tolist(), strict=True):
        places = {Location(*row[1:]) for row in rows if row[0] == content_id}
        assert {table.location(at) for at in table.rows_of(content_id)} == places
        allowed = {place for place in places if place.pack not in forbidden}
        assert (row >= 0) == bool(allowed)
        assert row < 0 or table.location(row) in allowed


@given(rows_of_ids, st.lists(st.sampled_from(IDS), max_size=12))
def test_all_copies_of_many_ids(rows: list[Row], wanted: list[bytes]) -> None:
    table = table_of(rows)
    expected = [at for at, row in enumerate(rows_in(table)) if row[0] in wanted]
    assert table.find_all(ids_of(wanted)).tolist() == expected


@given(st.lists(rows_of_ids, min_size=1, max_size=5))
def test_merging_keeps_every_entry(parts: list[list[Row]]) -> None:
    merged = merge_tables([table_of(rows) for rows in parts])
    assert set(rows_in(merged)) == {row for rows in parts for row in rows}
    prefixes = merged.prefixes
    assert bool((prefixes[1:] >= prefixes[:-1]).all())


@given(rows_of_ids, st.sets(st.sampled_from(PACKS)))
def test_leaving_packs_out(rows: list[Row], gone: set[PackRef]) -> None:
    left = table_of(rows).without(gone)
    assert sorted(rows_in(left)) == sorted(row for row in rows if row[1] not in gone)
    assert not gone & set(left.packs)
    assert sorted(rows_in(decode_table(left.encode(), "x"))) == sorted(rows_in(left))


@given(rows_of_ids)
def test_how_long_packs_must_be(rows: list[Row]) -> None:
    table = table_of(rows)
    for pack, end in zip(table.packs, table.pack_ends().tolist(), strict=True):
        assert end == max(offset + length for _, one, offset, length in rows if one == pack)


def test_a_copy_among_thousands_of_bad_ones_is_found() -> None:
    """Somebody may list an id in as many packs as they like."""
    rows: list[Row] = [(IDS[4], PACKS[0], at, 1) for at in range(5000)]
    rows += [(IDS[4], PACKS[3], 7, 1), (IDS[3], PACKS[0], 7, 1)]
    table = table_of(rows)
    usable = np.array([pack == PACKS[3] for pack in table.packs], np.bool_)
    found = table.find(ids_of([IDS[4], IDS[3], IDS[4], IDS[0]]), usable).tolist()
    assert table.location(found[0]) == Location(PACKS[3], 7, 1)
    assert found == [found[0], -1, found[0], -1]


def test_a_copy_listed_twice_is_kept_once() -> None:
    rows: list[Row] = [(bytes([at]) * 32, PACKS[at % 2], at * 10, 5) for at in range(50)]
    assert len(merge_tables([table_of(rows), table_of(rows)])) == len(rows)


@pytest.mark.parametrize("hostile_first", [True, False])
def test_a_forged_row_does_not_push_out_a_true_one(hostile_first: bool) -> None:
    true: Row = (IDS[1], PACKS[0], 8, 100)
    forged: list[Row] = [(IDS[2], PACKS[0], 8, 100), (IDS[1], PACKS[0], 8, 7)]
    tables = [table_of(forged), table_of([true])]
    merged = merge_tables(tables if hostile_first else tables[::-1])
    assert true in rows_in(merged)


def test_an_entry_costs_at_most_48_bytes() -> None:
    rows: list[Row] = [(n.to_bytes(32, "big"), PACKS[0], n, 1) for n in range(10_000)]
    assert len(table_of(rows).encode()) / len(rows) < 48


GOOD = table_of([(one, PACKS[at % 5], at, 1) for at, one in enumerate(IDS)]).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        GOOD[:7],
        GOOD[:-1],
        GOOD + b"x",
        struct.pack("<II", 1 << 31, 1) + GOOD[8:],
        struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF),
        GOOD[:8] + b"\xff" * 8 + GOOD[16:],
        GOOD[: -17 * 5] + b"\x07" + GOOD[-17 * 5 + 1 :],
        GOOD[: 8 + 9 * 32] + b"\xff" * 4 + GOOD[8 + 9 * 32 + 4 :],
    ],
    ids=range(9),
)
def test_impossible_segments(payload: bytes) -> None:
    with pytest.raises(ObjectDamaged, match="index/x"):
        decode_table(payload, "index/x")


@given(st.binary(max_size=400))
def test_garbage_is_damage_or_a_table(payload: bytes) -> None:
    try:
        table = decode_table(payload, "index/x")
    except ObjectDamaged:
        return
    table.find(ids_of(IDS), np.ones(len(table.packs), np.bool_))
    rows_in(table)
