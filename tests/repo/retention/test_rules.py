"""In which bucket of the calendar a moment is: at the very edges of each, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backpoint_repo.retention.rules import Rules


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("rule", "begin", "end"),
    [
        ("hourly", "2026-03-01T10:00:00", "2026-03-01T11:00:00"),
        ("daily", "2026-03-01T00:00:00", "2026-03-02T00:00:00"),
        ("weekly", "2026-03-02T00:00:00", "2026-03-09T00:00:00"),
        ("weekly", "2025-12-29T00:00:00", "2026-01-05T00:00:00"),
        ("monthly", "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
        ("monthly", "2025-12-01T00:00:00", "2026-01-01T00:00:00"),
        ("yearly", "2026-01-01T00:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_where_a_bucket_begins_and_ends(rule: str, begin: str, end: str) -> None:
    """The next one has a higher number, whatever year it is."""
    ((name, wanted, bucket),) = Rules(**{rule: 7}).buckets
    assert (name, wanted) == (rule, 7)
    first, after = moment(begin), moment(end)
    number = bucket(first)
    assert bucket(after - 1) == bucket((first + after) / 2) == number
    assert bucket(first - 1) == number - 1
    assert bucket(after) == number + 1
