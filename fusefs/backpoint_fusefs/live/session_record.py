"""What a session is, in one small file: of which point, since when, how far committed.

`session.json`, replaced atomically and durably: the one place where a commit takes effect on the
session. Knows no disks and no names.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from backpoint_fusefs.live.bounded_file import read_bounded
from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_repo.durable_file import write_durably
from backpoint_repo.errors import UnknownFormat
from backpoint_repo.point import is_calendar_time

RECORD: Final = "session.json"
VERSION: Final = 1
_SIZE_MAX: Final = 1 << 20
_NUMBER_MAX: Final = 1 << 53
"""What any program's JSON can hold exactly."""
_HEX_DIGITS: Final = {"session_id": 16, "repository_id": 32, "point_id": 32, "origin": 32}


@dataclass(frozen=True)
class SessionRecord:
    """session_id, repository_id, point_id: hex. point_id: the point whose disks lie below, after a
    commit the committed one; origin: the one it was started from. floor: layers up to this number
    are in that point. cut: the highest number that was cut. created: seconds since 1970. label: for
    the user. owner: who it is kept for (`boot`, `prove`, `vcenter`), empty for a person."""

    session_id: str
    name: str
    repository_id: str
    vm: str
    point_id: str
    origin: str
    created: float
    frozen: bool = False
    floor: int = 0
    cut: int = 0
    owner: str = ""


def read_record(folder: Path) -> SessionRecord:
    """The record of the session in this folder. Raises SessionDamaged, UnknownFormat."""
    path = folder / RECORD
    try:
        stored = json.loads(read_bounded(path, _SIZE_MAX))
    except (ValueError, RecursionError):
        raise SessionDamaged(f"{path} is not what this program wrote") from None
    except OSError as error:
        raise SessionDamaged(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(stored, dict):
        raise SessionDamaged(f"{path} is not what this program wrote")
    version = stored.get("version")
    if type(version) is int and version > VERSION:
        raise UnknownFormat(f"{path} was written by a newer version of this program")
    record = _decoded(stored)
    if version != VERSION or record is None:
        raise SessionDamaged(f"{path} says what no session can be")
    return record


def own_record(folder: Path) -> SessionRecord:
    """As `read_record`; SessionDamaged too where it is another session's than the folder says."""
    record = read_record(folder)
    if record.name != folder.name:
        raise SessionDamaged(
            f"{folder} is a copy of the session {record.name}, or was renamed: a session keeps its "
            f"name, so rename it back to {record.name} or delete the copy"
        )
    return record


def write_record(folder: Path, record: SessionRecord) -> None:
    """Durable when it returns; whoever looks finds the old one or this one. Raises OSError."""
    stored = {"version": VERSION, **asdict(record)}
    write_durably(folder / RECORD, json.dumps(stored, indent=1).encode())


def _decoded(stored: dict[str, Any]) -> SessionRecord | None:
    """None where a field is missing or impossible; fields that are not known are passed over."""
    kinds = {"str": str, "float": float, "bool": bool, "int": int}
    known = {field.name: stored.get(field.name) for field in fields(SessionRecord)}
    if any(
        type(known[field.name]) is not kinds[str(field.type)] for field in fields(SessionRecord)
    ):
        return None
    record = SessionRecord(**known)  # type: ignore[arg-type]
    hexadecimal = all(
        re.fullmatch(f"[0-9a-f]{{{digits}}}", str(known[name]))
        for name, digits in _HEX_DIGITS.items()
    )
    possible = is_calendar_time(record.created) and 0 <= record.floor <= record.cut < _NUMBER_MAX
    return record if hexadecimal and possible and record.name else None
