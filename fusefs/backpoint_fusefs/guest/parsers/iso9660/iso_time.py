"""The two forms of an ISO 9660 date as nanoseconds since 1970.

Format: ECMA-119, 8.4.26.1 and 9.1.5.
"""

from __future__ import annotations

from calendar import timegm
from typing import Final

_SECOND: Final = 1_000_000_000
_QUARTER: Final = 900


def short_time_ns(date: bytes) -> int:
    """Seven bytes; all zero: never set."""
    if len(date) < 7 or not any(date[:6]):
        return 0
    year, month, day, hour, minute, second = date[:6]
    return _seconds((1900 + year, month, day, hour, minute, second), date[6]) * _SECOND


def long_time_ns(date: bytes) -> int:
    """Sixteen digits and a byte."""
    digits = date[:16]
    if len(date) < 17 or not digits.isdigit() or not int(digits):
        return 0
    parts = [int(digits[start:end]) for start, end in ((0, 4), (4, 6), (6, 8), (8, 10))]
    minute, second, hundredth = int(digits[10:12]), int(digits[12:14]), int(digits[14:16])
    year, month, day, hour = parts
    seconds = _seconds((year, month, day, hour, minute, second), date[16])
    return seconds * _SECOND + hundredth * (_SECOND // 100)


def _seconds(parts: tuple[int, int, int, int, int, int], zone: int) -> int:
    """zone: quarters of an hour east of UTC, signed. Impossible months are the nearest ones."""
    year, month, day, hour, minute, second = parts
    quarters = zone - 256 if zone > 127 else zone
    local = timegm((max(year, 1), min(max(month, 1), 12), day, hour, minute, second))
    return local - quarters * _QUARTER
