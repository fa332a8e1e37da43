"""A moment as a user writes it: ISO 8601, or seconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from backpoint_repo.errors import UsageError

_SECONDS: Final = re.compile(r"\d{5,12}(\.\d+)?", re.ASCII)
"""Five digits at least: 2026 is a year."""
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def parse_moment(text: str) -> float:
    """Seconds since 1970. Without an offset the time is UTC.

    Raises UsageError for anything else, and for times before 1970 or after the year 9999.
    """
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        try:
            moment = datetime.fromisoformat(text.strip())
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = aware.timestamp()
        except (ValueError, OverflowError) as error:
            raise UsageError(
                f"{text!r} is no time; write it like 2026-11-20T02:00:00Z, or as seconds since 1970"
            ) from error
    if not 0 <= seconds < _LAST:
        raise UsageError(f"{text!r} is not a time from 1970 to 9999")
    return seconds
