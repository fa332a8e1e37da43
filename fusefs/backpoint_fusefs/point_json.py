"""point.json: what `backpoint show --json` says of a point, as a file people can read too.

Only adds what a mount must withstand: times from clocks that say anything.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from backpoint_fusefs.listing import moment_of
from backpoint_repo.point import Point
from backpoint_repo.point_record import full_record


def point_json(point: Point) -> bytes:
    """UTF-8, indented, ending in a newline."""
    text = json.dumps(point_fields(point), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def point_fields(point: Point) -> dict[str, Any]:
    """All that is known about a point; times in UTC text (`point`) and in seconds since 1970."""
    sane = dataclasses.replace(
        point,
        time=moment_of(point.time),
        created=moment_of(point.created),
        duration_s=moment_of(point.duration_s),
    )
    return full_record(sane)
