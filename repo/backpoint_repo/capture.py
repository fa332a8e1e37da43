"""What the maker of a point wrote down for the next run and for the user: plain, bounded data.

A map as JSON has it; of what is inside, the repository asks only whether `ORIGIN` (`point.py`) is
there. Decides what is too much: a hostile writer must not make every listing slow.
"""

from __future__ import annotations

import math
from typing import Any, Final

Capture = dict[str, Any]
"""Keys are text; values None, bool, int, float, text, lists and maps of those."""

_ITEMS_MAX: Final = 20_000
_DEPTH_MAX: Final = 8
_TEXT_MAX: Final = 64 << 10
_INT_MAX: Final = 1 << 63


def refusal(capture: object) -> str | None:
    """Why this is no capture, or None where it is one."""
    if not isinstance(capture, dict):
        return "is not a map"
    left = _ITEMS_MAX
    level: list[object] = [capture]
    for _ in range(_DEPTH_MAX):
        below = [item for value in level for item in _items(value)]
        left -= len(below)
        if left < 0:
            return f"has more than {_ITEMS_MAX} items"
        for value in level:
            if isinstance(value, dict) and not all(_is_text(key) for key in value):
                return "has a key that is not text"
        if not below:
            return None
        for value in below:
            if not isinstance(value, dict | list) and not _is_plain(value):
                return f"holds a {type(value).__name__} that no JSON can"
        level = below
    return f"is nested deeper than {_DEPTH_MAX}"


def _items(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, bool) or value is None:
        return True
    return isinstance(value, int) and -_INT_MAX <= value < _INT_MAX


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
