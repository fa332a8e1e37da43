"""A run's record out of its JSON, checked: it comes from a file that anything may have happened to.

Decides what a record must have to be believed, and that what a later version adds is passed over.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, Final, TypeVar, get_args

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.running.outcome import DiskOutcome, MachineOutcome, Status
from backpoint_repo.point import is_calendar_time

_STATUSES: Final = get_args(Status)
_NUMBER_MAX: Final = float(1 << 62)
_TIMES: Final = frozenset({"started", "ended", "point_time"})
_Made = TypeVar("_Made", RunRecord, MachineOutcome, DiskOutcome)


def decode_run(record: dict[str, Any]) -> RunRecord:
    """Raises ValueError, with what is wrong, where it is no record of a run."""
    if record.get("type") != "run":
        raise ValueError("it is no record of a run")
    made = {
        "outcomes": tuple(map(_outcome, _list(record, "outcomes"))),
        "skipped": tuple(map(_pair, _list(record, "skipped"))),
        "removed": tuple(map(_pair, _list(record, "removed"))),
        "warnings": _texts(record, "warnings"),
    }
    return _make(RunRecord, record | made)


def _outcome(value: object) -> MachineOutcome:
    record = _object(value)
    if record.get("status") not in _STATUSES:
        raise ValueError("a VM's status is none")
    made = {
        "disks": tuple(_make(DiskOutcome, _object(disk)) for disk in _list(record, "disks")),
        "warnings": _texts(record, "warnings"),
        "alarms": _texts(record, "alarms"),
    }
    return _make(MachineOutcome, record | made)


def _make(kind: type[_Made], record: dict[str, Any]) -> _Made:
    given: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in record:
            if field.default is MISSING:
                raise ValueError(f"{field.name} is missing")
            continue
        given[field.name] = _checked(field.name, str(field.type), record[field.name])
    return kind(**given)


def _checked(name: str, kind: str, value: object) -> object:
    """kind: the annotation as it is written."""
    if value is None and kind.endswith("| None"):
        return None
    match kind.removesuffix(" | None"):
        case "str":
            right = isinstance(value, str)
        case "bool":
            right = isinstance(value, bool)
        case "int":
            right = isinstance(value, int) and not isinstance(value, bool) and _in_range(value)
        case "float":
            right = isinstance(value, int | float) and not isinstance(value, bool)
            right = right and _in_range(value) and (name not in _TIMES or _is_time(value))
        case _:
            right = True  # made and checked above
    if not right:
        raise ValueError(f"{name} is no {kind}")
    return value


def _in_range(value: Any) -> bool:
    return bool(0 <= value < _NUMBER_MAX)


def _is_time(value: Any) -> bool:
    return is_calendar_time(value)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an entry is no object")
    return value


def _list(record: dict[str, Any], key: str) -> list[Any]:
    found = record.get(key, [])
    if not isinstance(found, list):
        raise ValueError(f"{key} is no list")
    return found


def _texts(record: dict[str, Any], key: str) -> tuple[str, ...]:
    found = _list(record, key)
    if not all(isinstance(text, str) for text in found):
        raise ValueError(f"{key} are no texts")
    return tuple(found)


def _pair(value: object) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(t, str) for t in value):
        raise ValueError("what was left out or removed is no pair of texts")
    return value[0], value[1]
