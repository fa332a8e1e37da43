"""Restore points as JSON records and in words; one place, so that every command says the same.

Times are given twice in records: seconds since 1970, and as UTC text that `VM@POINT` takes. Knows
no output stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backpoint_repo.catalog import PointSummary
from backpoint_repo.point import Point
from backpoint_repo.point_note import PointNote
from backpoint_repo.point_selector import format_time


def point_name(point: Point | PointSummary) -> str:
    """`web01@2026-11-20T02-00-00Z`, as commands take it."""
    return f"{point.vm}@{format_time(point.time)}"


def summary_record(point: PointSummary) -> dict[str, Any]:
    """One line of `points --json`. Sizes in bytes."""
    return {
        "id": point.point_id.hex(),
        "vm": point.vm,
        "point": format_time(point.time),
        "time": point.time,
        "created": point.created,
        "label": point.label,
        "disks": point.disks,
        "size": point.size,
        "allocated": point.allocated,
        "stored": point.stored,
        "warnings": point.warnings,
    }


def full_record(point: Point, notes: Sequence[PointNote] = ()) -> dict[str, Any]:
    """Everything that is recorded of a point, without the ids of its content. Sizes in bytes."""
    disks = [
        {
            "number": number,
            "key": disk.key,
            "size": disk.size,
            "allocated": disk.allocated,
            "source": disk.source,
        }
        for number, disk in enumerate(point.disks)
    ]
    return {
        "id": point.point_id.hex(),
        "vm": point.vm,
        "point": format_time(point.time),
        "time": point.time,
        "created": point.created,
        "label": point.label,
        "consistency": point.consistency,
        "disks": disks,
        "files": [{"name": file.name, "size": file.size} for file in point.files],
        "size": point.size,
        "allocated": point.allocated,
        "read": point.traffic.read,
        "new": point.traffic.new,
        "stored": point.traffic.stored,
        "duration_s": round(point.duration_s, 3),
        "parent": point.parent.hex() if point.parent else None,
        "generation": point.generation,
        "warnings": list(point.warnings),
        "tool": point.tool,
        "capture": point.capture,
        **({"notes": {note.topic: note.facts for note in notes}} if notes else {}),
    }
