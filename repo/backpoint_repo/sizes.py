"""Sizes, rates, durations and counts as people write them; bytes and seconds everywhere else.

Units are binary: 64K, 64KiB and 65536 are the same size.
"""

from __future__ import annotations

import re
from typing import Final

from backpoint_repo.errors import UsageError

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SIZE: Final = re.compile(
    r"(\d{1,19}(?:\.\d{1,9})?)\s*([KMGTPE]?)(?:I?B)?", re.IGNORECASE | re.ASCII
)
_DURATION: Final = re.compile(r"(\d{1,9})\s*([smhdwy]?)", re.ASCII)
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}


def parse_duration(text: str) -> float:
    """Seconds. Raises UsageError where the text is no duration of at most 1000 years."""
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if match is None or seconds > 1000 * _SECONDS["y"]:
        raise UsageError(f"{text!r} is no duration; write it like 90s, 30m, 12h, 14d, 8w or 1y")
    return float(seconds)


def parse_size(text: str) -> int:
    """Bytes. Raises UsageError where the text is no size, or no whole number of bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size; write it like 65536, 64K or 1.5G")
    number, unit = match.groups()
    whole, _, fraction = number.partition(".")
    scale = 1 << 10 * (" KMGTPE".index(unit.upper()) if unit else 0)
    # In integers: 2**60 and its neighbours are different sizes.
    parts, rest = divmod(int(fraction or 0) * scale, int("1" + "0" * len(fraction)))
    if rest:
        raise UsageError(f"{text!r} is not a whole number of bytes")
    return int(whole) * scale + parts


def format_size(size: float) -> str:
    """`1.5 GiB`; three to four significant digits, always with a unit."""
    value, unit = float(size), 0
    while abs(value) >= 1023.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def format_rate(bytes_per_s: float) -> str:
    """`250.0 MiB/s`."""
    return f"{format_size(bytes_per_s)}/s"


def counted(count: int, thing: str) -> str:
    """`1 pack`, `2 packs`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """`0.4 s` under a minute, `2:05` under an hour, `1:02:03` above."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
