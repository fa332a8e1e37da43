"""A moment as a user writes it: ISO 8601, seconds since 1970, or for an end how long from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from backpoint_repo.errors import UsageError
from backpoint_repo.sizes import parse_duration

_SECONDS: Final = re.compile(r"\d{5,12}(\.\d+)?", re.ASCII)
"""Five digits at least: 2026 is a year."""
_FROM_NOW: Final = re.compile(r"\s*\d+\s*[a-zA-Z]+\s*", re.ASCII)
"""With its unit: a bare number is seconds since 1970."""
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


def parse_end(text: str, now: float) -> float:
    """When something ends: `30d` from now, or a moment after it. Seconds since 1970.

    Raises UsageError for what is neither, and for what is over already.
    """
    end = now + parse_duration(text) if _FROM_NOW.fullmatch(text) else parse_moment(text)
    if end <= now:
        raise UsageError(f"{text!r} is no later time than now")
    return end
