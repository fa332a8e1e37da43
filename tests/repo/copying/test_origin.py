"""Whose copy a point is: what is recorded, what is believed of it, and what a listing tells."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.capture import Capture
from backpoint_repo.catalog import Catalog, PointSummary, summarize
from backpoint_repo.check import check_repository
from backpoint_repo.copying.origin import capture_of_copy, identity_of
from backpoint_repo.format import Kind
from backpoint_repo.point import Point, decode_point
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from small_repository import NOON, reopened

HERE = b"h" * 16
GOOD = "ab" * 16
MANY = 100
"""Points that are not known: only then a catalogue is read."""


def point_with(capture: Capture, number: int = 1) -> Point:
    return Point(number.to_bytes(16, "big"), "web", NOON, NOON, "", (), capture=capture)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_copy_says_whose_it_is_and_a_copy_of_it_the_same(first: bytes, second: bytes) -> None:
    """It goes through the record; and a point that is copied on has the identity it had."""
    original = point_with({"uuid": "42"})
    assert identity_of(HERE, original) == HERE + original.point_id
    copy = point_with(capture_of_copy(original.capture, first))
    decoded = decode_point(copy.point_id, copy.encode())
    assert decoded.origin == first == identity_of(HERE, decoded) == summarize(decoded).origin
    assert decoded.capture["uuid"] == "42"
    assert point_with(capture_of_copy(copy.capture, second)).origin == second


@pytest.mark.parametrize(
    "told",
    [
        None,
        "",
        7,
        [],
        {},
        {"repository": GOOD},
        {"repository": GOOD, "point": None},
        {"repository": 1, "point": GOOD},
        {"repository": GOOD, "point": GOOD.upper()},
        {"repository": GOOD, "point": GOOD[2:]},
        {"repository": GOOD, "point": GOOD + "ab"},
        {"repository": GOOD, "point": GOOD[2:] + "\u0661\u0662"},
    ],
)
def test_what_is_malformed_is_no_origin(told: Any) -> None:
    point = point_with({"copy": told})
    assert decode_point(point.point_id, point.encode()).origin == b""


def listed(repository: Repository, rows: list[list[Any]]) -> list[PointSummary]:
    """What a fresh listing makes of a catalogue with these rows, all of points that are there."""
    filler = [[n.to_bytes(16, "big")] for n in range(1000, 1000 + MANY)]
    for row in filler:
        void = encode_record({"revoked": NOON, "by": bytes(16)})
        repository.sealed.put(Kind.VOID, row[0].hex(), void)
    repository.sealed.put(Kind.CATALOG, "ab" * 16, encode_record({"points": rows + filler}))
    return Catalog(repository.sealed).refresh()


def put(repository: Repository, capture: Capture) -> PointSummary:
    point = point_with(capture)
    repository.sealed.put(Kind.POINT, point.point_id.hex(), point.encode())
    return summarize(point)


@pytest.mark.parametrize("columns", [11, 12])
def test_rows_of_older_programs_say_nothing(repository: Repository, columns: int) -> None:
    """And have not lied."""
    copy = put(repository, capture_of_copy({}, bytes(range(32))))
    (found,) = listed(repository, [list(copy)[:columns]])
    assert (found.point_id, found.origin) == (copy.point_id, b"")
    assert not any("otherwise" in note for note in check_repository(reopened(repository)).notes)


def test_an_impossible_origin_spoils_the_catalogue_and_costs_time_only(
    repository: Repository,
) -> None:
    copy = put(repository, capture_of_copy({}, bytes(range(32))))
    (found,) = listed(repository, [list(copy._replace(origin=b"short"))])
    assert found == copy


def test_a_catalogue_that_lies_about_it_is_told(repository: Repository) -> None:
    """A point that it calls a copy of another would not be copied."""
    native = put(repository, {})
    (found,) = listed(repository, [list(native._replace(origin=bytes(range(32))))])
    assert found.origin == bytes(range(32))
    notes = check_repository(reopened(repository)).notes
    assert any("otherwise than" in note for note in notes)
