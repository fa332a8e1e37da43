"""Sizes, durations and moments as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import UsageError
from backpoint_repo.moment import parse_moment
from backpoint_repo.point_selector import format_time
from backpoint_repo.sizes import (
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("64K", 65536),
        ("64k", 65536),
        ("64 KiB", 65536),
        ("64KB", 65536),
        ("1.5G", 3 << 29),
        ("0.5M", 1 << 19),
        ("2T", 2 << 40),
        ("1E", 1 << 60),
        ("1152921504606846977", (1 << 60) + 1),
        ("7B", 7),
    ],
)
def test_sizes_are_exact(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5", "0.3K", "1,5G", "64Q", "٣K", "1e3", "1.K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@given(st.integers(0, 1 << 62))
def test_plain_numbers_are_taken_as_they_are(size: int) -> None:
    assert parse_size(str(size)) == size


@given(st.integers(0, (1 << 63) - 1))
def test_shown_sizes_are_right_within_their_digits(size: int) -> None:
    number, unit = format_size(size).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)
    assert abs(float(number) * scale - size) <= 0.051 * scale
    assert float(number) < 1024 or unit == "EiB"


def test_shown_sizes_and_durations() -> None:
    assert [format_size(size) for size in (0, 1023, 1024, 1 << 20, 1048575)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 MiB",
        "1.0 MiB",
    ]
    assert format_rate(250 << 20) == "250.0 MiB/s"
    shown = [format_duration(seconds) for seconds in (0.04, 59.9, 59.96, 125, 3599.6, 3723)]
    assert shown == ["0.0 s", "59.9 s", "1:00", "2:05", "1:00:00", "1:02:03"]


@given(st.integers(0, 253_402_214_399))
def test_a_shown_moment_means_itself(seconds: int) -> None:
    day, _, clock = format_time(seconds).partition("T")
    assert parse_moment(f"{day}T{clock.replace('-', ':')}") == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("3m", 180),
        ("2 h", 7200),
        ("14D", 1209600),
        ("8w", 4838400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "3 months", "9999y", "1d2h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        parse_duration(text)
