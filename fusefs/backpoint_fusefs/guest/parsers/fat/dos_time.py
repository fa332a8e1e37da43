"""DOS dates and times as nanoseconds since 1970.

They are the guest's local time without saying which, and are shown as if they were UTC: the same
everywhere, whatever zone the reader is in. exFAT may say how far from UTC it was, and then it is.
"""

from __future__ import annotations

from calendar import timegm
from functools import lru_cache
from typing import Final

_SECOND: Final = 1_000_000_000
_OFFSET_VALID: Final = 0x80


def dos_time_ns(date: int, time: int, hundredths: int = 0, utc_offset: int = 0) -> int:
    """utc_offset: exFAT's byte: quarters of an hour in seven bits, signed, and a bit if valid."""
    seconds = _day(date) + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2
    if utc_offset & _OFFSET_VALID:
        quarters = (utc_offset & 0x7F ^ 0x40) - 0x40
        seconds -= quarters * 900
    return seconds * _SECOND + hundredths * (_SECOND // 100)


@lru_cache(maxsize=4096)
def _day(date: int) -> int:
    """Impossible months and days are taken for the nearest: 0 means never set."""
    month, day = min(max(date >> 5 & 15, 1), 12), max(date & 31, 1)
    return timegm((1980 + (date >> 9), month, day, 0, 0, 0))
