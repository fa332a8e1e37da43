"""Restore points as JSON records and in words; one place, so that every command says the same.

Times are given twice in records: seconds since 1970, and as UTC text that `VM@POINT` takes. Knows
no output stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backpoint_repo.catalog import PointSummary
from backpoint_repo.point import ORIGIN_SIZE, Point, is_calendar_time
from backpoint_repo.point_hold import Hold
from backpoint_repo.point_note import PointNote
from backpoint_repo.point_proof import History, Unreadable
from backpoint_repo.point_selector import format_time
from backpoint_repo.proof import Proof, proof_record


def point_name(point: Point | PointSummary) -> str:
    """`web01@2026-11-20T02-00-00Z`, as commands take it."""
    return f"{point.vm}@{format_time(point.time)}"


def summary_record(
    point: PointSummary, proof: Proof | Unreadable | None, holds: Sequence[Hold] = ()
) -> dict[str, Any]:
    """One line of `points --json`. Sizes in bytes. proof: the newest. holds: that hold now."""
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
        "origin": origin_record(point.origin),
        "proof": any_proof_record(proof),
        "holds": [hold_record(hold) for hold in holds],
    }


def origin_record(origin: bytes) -> dict[str, str] | None:
    """Of a copy, which repository's and whose; None for what is no copy."""
    if not origin:
        return None
    half = ORIGIN_SIZE // 2
    return {"repository": origin[:half].hex(), "point": origin[half:].hex()}


def hold_record(hold: Hold) -> dict[str, Any]:
    """by_hand: whether `backpoint unhold` drops it."""
    return {
        "why": hold.why,
        "by_hand": hold.by_hand,
        "since": hold.since,
        "until": hold.until,
        "until_time": until_time(hold),
    }


def until_time(hold: Hold) -> str | None:
    """As UTC text; None for as long as it is there. A time that no calendar shows is none."""
    if hold.until is None or not is_calendar_time(hold.until):
        return None
    return format_time(hold.until)


def until_text(hold: Hold) -> str:
    """`until 2026-12-20T02-00-00Z`, `until it is dropped`."""
    return f"until {until_time(hold) or 'it is dropped'}"


def holds_cell(holds: Sequence[Hold]) -> str:
    """`held`, or the day until which it is, if all holds end; empty without one."""
    days = [until_time(hold) for hold in holds]
    if not days:
        return ""
    return "held" if None in days else f"until {max(filter(None, days))[:10]}"


def any_proof_record(proof: Proof | Unreadable | None) -> dict[str, Any] | None:
    """Also of a proof that cannot be read: it is told as one that is not ok."""
    if not isinstance(proof, Unreadable):
        return None if proof is None else proof_record(proof)
    return {
        "id": proof.proof_id,
        "point": proof.point_id.hex(),
        "ok": False,
        "time": format_time(proof.at),
        "at": proof.at,
        "unreadable": proof.why,
    }


def proof_cell(proof: Proof | Unreadable | None) -> str:
    """`boot 2026-11-21`, `FAILED trees 2026-11-21`, `unreadable 2026-11-21`; empty without one."""
    if proof is None:
        return ""
    day = format_time(proof.at)[:10]
    if isinstance(proof, Unreadable):
        return f"unreadable {day}"
    failed = proof.failed_level
    return f"{proof.level.value} {day}" if failed is None else f"FAILED {failed.value} {day}"


def full_record(
    point: Point,
    notes: Sequence[PointNote] = (),
    proofs: History | None = None,
    holds: Sequence[Hold] | None = None,
) -> dict[str, Any]:
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
        "origin": origin_record(point.origin),
        **({"notes": {note.topic: note.facts for note in notes}} if notes else {}),
        **({"proofs": history_records(proofs)} if proofs is not None else {}),
        **({"holds": [hold_record(hold) for hold in holds]} if holds is not None else {}),
    }


def history_records(history: History) -> list[dict[str, Any]]:
    """Newest first, what cannot be read among the others."""
    every: list[Proof | Unreadable] = [*history.proofs, *history.unreadable]
    every.sort(key=lambda proof: proof.proof_id, reverse=True)
    return [record for proof in every if (record := any_proof_record(proof)) is not None]
