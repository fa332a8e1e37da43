"""Rows of readings: what counts of many, and what is no row at all."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.scrubbing.readings import (
    AHEAD_S,
    COMPARED,
    OPENED,
    Readings,
    ages_of,
    decode_rows,
    encode_rows,
    row_of,
    rows_of,
)

NOW = 1e9
# Names that end in zeros, and that are a beginning of each other but for those.
PACKS = [
    PackRef(kind, name)
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK)
    for name in (bytes(16), b"a" + bytes(15), b"a" * 16, b"\0" * 15 + b"a", b"\xff" * 16)
]
READING = st.tuples(
    st.sampled_from(PACKS),
    st.one_of(st.floats(0, NOW), st.sampled_from([NOW + AHEAD_S, 0.0])),
    st.sampled_from([COMPARED, OPENED]),
)


def learned(packs: list[PackRef], *parts: list[tuple[PackRef, float, int]]) -> Readings:
    readings = Readings(packs)
    for part in parts:
        readings.learn(rows_of([row_of(*reading) for reading in part]), NOW)
    return readings


@given(st.lists(st.lists(READING, max_size=20), max_size=5), st.sets(st.sampled_from(PACKS)))
def test_the_newest_of_each_depth_counts_however_they_are_spread(
    parts: list[list[tuple[PackRef, float, int]]], there: set[PackRef]
) -> None:
    readings = learned(sorted(there), *parts)
    assert list(readings.packs) == sorted(there)
    every = [reading for part in parts for reading in part]
    for depth in (COMPARED, OPENED):
        expected = [
            max((at for pack, at, deep in every if pack == wanted and deep >= depth), default=None)
            for wanted in readings.packs
        ]
        found = [None if at == -math.inf else at for at in readings.last_good(depth).tolist()]
        assert found == expected


@given(st.lists(st.lists(READING, max_size=20), max_size=5))
def test_merging_loses_nothing_that_counts(
    parts: list[list[tuple[PackRef, float, int]]],
) -> None:
    """Also when only some of them were merged before, in any order."""
    whole = learned(PACKS, *parts)
    again = Readings(PACKS)
    for part in reversed(parts):
        again.learn(decode_rows(encode_rows(learned(PACKS, part).rows()), "it"), NOW)
    merged = Readings(PACKS)
    merged.learn(again.rows(), NOW)
    assert encode_rows(merged.rows()) == encode_rows(whole.rows())


def test_a_row_is_as_the_format_says() -> None:
    pack = PackRef(Kind.NODE_PACK, bytes(range(16)))
    data = encode_rows(rows_of([row_of(pack, 1234.5, OPENED)]))
    assert data == b"\x04" + bytes(range(16)) + struct.pack("<d", 1234.5) + b"\x01"


@pytest.mark.parametrize("at", [math.nan, math.inf, -1.0, NOW + AHEAD_S + 1])
def test_a_time_that_cannot_be_is_no_reading(at: float) -> None:
    """Whoever could put one would keep a pack from being read for ever."""
    readings = learned(PACKS, [(PACKS[0], at, OPENED)])
    assert ages_of(readings.last_good(COMPARED)).never == len(PACKS)
    assert len(readings.rows()) == 0


def test_a_depth_of_later_versions_is_passed_over() -> None:
    readings = learned(PACKS, [(PACKS[0], 5.0, 2), (PACKS[1], 5.0, OPENED)])
    assert ages_of(readings.last_good(COMPARED)).never == len(PACKS) - 1


ROWS = st.lists(
    st.builds(
        bytes.__add__, st.sampled_from([b"\3", b"\4", b"\x0f"]), st.binary(min_size=25, max_size=25)
    )
)


@given(ROWS)
def test_any_rows_of_packs_are_taken(rows: list[bytes]) -> None:
    """Times of any bits, depths that nobody knows: passed over, and never in the way."""
    data = b"".join(rows)
    decoded = decode_rows(data, "it")
    assert encode_rows(decoded) == data
    readings = Readings(PACKS)
    readings.learn(decoded, NOW)
    assert (readings.last_good(COMPARED) <= NOW + AHEAD_S).all()


@given(ROWS, st.integers(0, 255), st.binary(min_size=1, max_size=25))
def test_anything_else_is_damage(rows: list[bytes], kind: int, rest: bytes) -> None:
    with pytest.raises(ObjectDamaged, match="readings/x"):
        decode_rows(b"".join(rows) + rest, "readings/x")
    if kind not in (Kind.DATA_PACK, Kind.NODE_PACK, Kind.PARITY):
        with pytest.raises(ObjectDamaged, match="readings/x"):
            decode_rows(b"".join(rows) + bytes([kind]) + bytes(25), "readings/x")


def test_ages() -> None:
    assert ages_of(np.array([])).oldest is None
    ages = ages_of(np.array([-math.inf, 7.0, 5.0]))
    assert (ages.never, ages.oldest) == (1, 5.0)
