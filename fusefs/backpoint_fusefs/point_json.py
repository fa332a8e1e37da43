"""point.json: a restore point as a file that people and programs can read.

Decides its fields' names. Times are given twice: as people write them, and in seconds since 1970;
sizes are in bytes, ids in hexadecimal digits.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from backpoint_fusefs.listing import moment_of
from backpoint_repo.point import Point


def point_json(point: Point) -> bytes:
    """UTF-8, indented, ending in a newline."""
    text = json.dumps(point_fields(point), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def point_fields(point: Point) -> dict[str, Any]:
    """All that is known about a point."""
    return {
        "id": point.point_id.hex(),
        "vm": point.vm,
        "time": _iso(point.time),
        "time_s": moment_of(point.time),
        "created": _iso(point.created),
        "created_s": moment_of(point.created),
        "duration_s": moment_of(point.duration_s),
        "label": point.label,
        "consistency": point.consistency,
        "warnings": list(point.warnings),
        "parent": None if point.parent is None else point.parent.hex(),
        "generation": point.generation,
        "size": point.size,
        "allocated": point.allocated,
        "disks": [
            {
                "number": number,
                "key": disk.key,
                "size": disk.size,
                "allocated": disk.allocated,
                "source": disk.source,
                "root": disk.root.hex(),
            }
            for number, disk in enumerate(point.disks)
        ],
        "files": [{"name": file.name, "size": file.size} for file in point.files],
        "traffic": {
            "read": point.traffic.read,
            "new": point.traffic.new,
            "stored": point.traffic.stored,
        },
        "tool": point.tool,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(moment_of(seconds), UTC).isoformat().replace("+00:00", "Z")
