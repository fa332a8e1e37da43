"""Names and descriptions of our snapshots, told from everybody else's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.snapshot_name import (
    SnapshotMark,
    make_description,
    make_name,
    parse_description,
    parse_name,
)

NUMBER = "20261121T170312Z-4711-9f0a1c2b-3"


def test_a_name_gives_its_number_back() -> None:
    """What was made is parsed, and fits vSphere's 80 characters."""
    assert parse_name(make_name(NUMBER)) == NUMBER
    assert len(make_name(NUMBER)) <= 80


@pytest.mark.parametrize(
    "name",
    [
        "",
        "backpoint-",
        NUMBER,
        "backpoint-test",
        f"backpoint-{NUMBER} (copy)",
        f" backpoint-{NUMBER}",
        f"backpoint-{NUMBER}\n",
        f"Backpoint-{NUMBER}",
        f"backpoint-backpoint-{NUMBER}",
        f"backpoint-{NUMBER.replace('3', '٣')}",
    ],
)
def test_what_only_looks_like_ours_is_not(name: str) -> None:
    """Copies, renamed ones and names that a user makes up are nobody's number."""
    assert parse_name(name) is None


@given(
    st.text(max_size=300), st.text(max_size=300), st.floats(allow_nan=False, allow_infinity=False)
)
def test_a_description_gives_back_what_was_written(host: str, run: str, at: float) -> None:
    """Host and run are cut to what vSphere takes."""
    text = make_description(SnapshotMark(host, run, at))
    assert parse_description(text) == SnapshotMark(host[:128], run[:128], at)


@given(st.text() | st.recursive(st.none(), st.lists).map(str))
def test_any_description_is_parsed_or_refused(text: str) -> None:
    """Nothing that somebody wrote raises."""
    assert parse_description(text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"by": "veeam", "host": "h", "run": "r", "at": 1}',
        '{"by": "backpoint", "host": 1, "run": "r", "at": 1}',
        '{"by": "backpoint", "host": "h", "run": "r", "at": NaN}',
        '{"by": "backpoint", "host": "h", "run": "r", "at": true}',
        '{"by": "backpoint", "host": "h", "run": "r", "at": 1' + "0" * 400 + "}",
        '{"by": "backpoint", "host": "h", "run": "r"}',
        "[" * 4000,
        " " * 5000 + "{}",
    ],
)
def test_descriptions_that_are_not_whole_are_not_ours(text: str) -> None:
    """A mark says all it should, or is none."""
    assert parse_description(text) is None
