"""What is said over a session's control socket: one request, one answer, each a line of JSON.

Whoever wants something of a session that another process has asks that process. Decides the words
and how much of them is read; who may ask and what is done is for others. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from backpoint_fusefs.live.errors import (
    SessionDamaged,
    SessionFrozen,
    SessionInUse,
    SessionStorageFailed,
)
from backpoint_fusefs.live.system_refusal import refusal
from backpoint_repo.errors import (
    BackpointError,
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    StoreUnavailable,
    UsageError,
)

SOCKET: Final = "control"
"""Its name in the session's folder."""
LINE_MAX: Final = 64 << 10
_NUMBER_END: Final = 1 << 53
"""What any program's JSON can hold exactly."""
_SESSION: Final = re.compile(r"[0-9a-f]{16}|")
_POINT: Final = re.compile(r"[0-9a-f]{32}|")
_RAISED: Final[Mapping[str, type[BackpointError]]] = {
    kind.__name__: kind
    for kind in (
        SessionDamaged,
        SessionFrozen,
        SessionInUse,
        SessionStorageFailed,
        ObjectDamaged,
        ObjectMissing,
        RepositoryError,
        StoreUnavailable,
        UsageError,
    )
}


class Verb(Enum):
    """What can be asked for."""

    STATUS = "status"
    CUT = "cut"
    REBASE = "rebase"
    FREEZE = "freeze"
    RELEASE = "release"


@dataclass(frozen=True)
class Request:
    """session: the id of the session that is meant, empty for whichever it is. point (hex) and
    through: of `rebase`. frozen: of `freeze`."""

    verb: Verb
    session: str = ""
    point: str = ""
    through: int = 0
    frozen: bool = True


@dataclass(frozen=True)
class Status:
    """Of which session, and which process has it. point: hex, what it stands on."""

    session: str
    pid: int
    point: str
    frozen: bool
    floor: int
    cut: int


Answer = dict[str, Any]


def encode_request(request: Request) -> bytes:
    """One line."""
    return _line(
        {
            "verb": request.verb.value,
            "session": request.session,
            "point": request.point,
            "through": request.through,
            "frozen": request.frozen,
        }
    )


def decode_request(line: bytes) -> Request:
    """Raises UsageError where it makes no sense."""
    fields = _fields(line)
    try:
        verb = Verb(fields.get("verb"))
    except ValueError:
        raise UsageError("a request with an unknown verb") from None
    frozen = fields.get("frozen", True)
    if verb is Verb.REBASE and not fields.get("point"):
        raise UsageError("a request to rebase that names no point")
    if type(frozen) is not bool:
        raise UsageError("a request that freezes neither nor thaws")
    return Request(
        verb,
        _id(fields, "session", _SESSION),
        _id(fields, "point", _POINT),
        _number(fields, "through"),
        frozen,
    )


def encode_answer(answer: Answer) -> bytes:
    """What was asked for is done."""
    return _line({"ok": True, **answer})


def encode_refusal(error: BackpointError | OSError) -> bytes:
    """It is not done, and why."""
    if isinstance(error, OSError):
        error = refusal(error)
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _RAISED]
    return _line({"ok": False, "error": kinds[0] if kinds else "", "message": str(error)})


def decode_answer(line: bytes) -> Answer:
    """Raises what the other process refused with, and UsageError where it is no answer."""
    answer = _fields(line)
    if answer.get("ok") is True:
        return answer
    kind, message = answer.get("error", ""), answer.get("message")
    text = message if isinstance(message, str) and message else "it did not say why"
    raised = _RAISED.get(kind, SessionInUse) if isinstance(kind, str) else SessionInUse
    raise raised(f"the process that has the session refused: {text}")


def encode_status(status: Status) -> bytes:
    """The answer to `status`."""
    return encode_answer(
        {
            "session": status.session,
            "pid": status.pid,
            "point": status.point,
            "frozen": status.frozen,
            "floor": status.floor,
            "cut": status.cut,
        }
    )


def decode_status(answer: Answer) -> Status:
    """Raises UsageError where it is none."""
    frozen = answer.get("frozen")
    if type(frozen) is not bool:
        raise UsageError("an answer that tells no session's status")
    return Status(
        _id(answer, "session", _SESSION),
        _number(answer, "pid"),
        _id(answer, "point", _POINT),
        frozen,
        _number(answer, "floor"),
        _number(answer, "cut"),
    )


def decode_cut(answer: Answer) -> int:
    """The number of the cut that was made. Raises UsageError."""
    return _number(answer, "cut")


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name, 0)
    if type(value) is not int or not 0 <= value < _NUMBER_END:
        raise UsageError(f"what came over the control socket has an impossible {name}")
    return value


def _id(fields: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = fields.get(name, "")
    if isinstance(value, str) and form.fullmatch(value):
        return value
    raise UsageError(f"what came over the control socket names no {name}")


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("what came over the control socket is no JSON") from None
    if not isinstance(fields, dict):
        raise UsageError("what came over the control socket is no request")
    return fields
