"""How a mistake in the file is told: its line, its key, and what is wrong in TOML's own terms.

Turns what pydantic found into sentences. Of the file it shows keys, numbers, and texts of which the
refusal speaks; never what stands where a secret belongs, which must not end up in a log.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backpoint_agent.settings.lines import Lines, nearest_line
from backpoint_agent.settings.section import KeyPath
from backpoint_repo.terminal import printable

_LONGEST: Final = 400
"""Characters of a part of a message; a key may be as long as the file."""
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_KEYS: Final = re.compile(r"\('[^'\\]*'(?:, '[^'\\]*'|,)*\)")
"""How tomllib shows a dotted key."""
_EXPECTED: Final = {
    "string_type": "a string",
    "path_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


@dataclass(frozen=True, order=True)
class Mistake:
    """line: the first is 1. key: as it would be written dotted, "" for the file as a whole."""

    line: int
    key: str
    text: str

    def told(self, file: str) -> str:
        """`backpoint.toml:17: jobs.nightly.limits.machines_at_once: must be at least 1, is 0`."""
        parts = (f"{file}:{self.line}", self.key, self.text)
        return ": ".join(_cut(printable(part)) for part in parts if part)


def syntax_mistake(text: str, error: Exception) -> Mistake:
    """What tomllib refused, with its line."""
    message = _KEYS.sub(lambda keys: dotted(ast.literal_eval(keys[0])), str(error))
    if not isinstance(error, tomllib.TOMLDecodeError):
        # Only numbers get this far; Python speaks of its own settings then.
        return Mistake(1, "", "a number is too long")
    found = _AT.search(message)
    if found is None or found[1] is None:
        return Mistake(text.rstrip().count("\n") + 1, "", _AT.sub(" at the file's end", message))
    return Mistake(int(found[1]), "", f"{message[: found.start()]} at column {found[2]}")


def content_mistakes(error: ValidationError, model: type[BaseModel], lines: Lines) -> list[Mistake]:
    """All that pydantic refused, in the file's order."""
    found = {_mistake(details, model, lines) for details in error.errors(include_url=False)}
    return sorted(found)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def dotted(path: KeyPath) -> str:
    """`jobs."täglich".exclude_disks[0].disks`; places in arrays count from 0."""
    written = ""
    for key in path:
        if isinstance(key, int):
            written += f"[{key}]"
        else:
            written += ("." if written else "") + _quoted(key)
    return written


def _quoted(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else '"' + key.replace('"', '\\"') + '"'


def _mistake(details: ErrorDetails, model: type[BaseModel], lines: Lines) -> Mistake:
    path = details["loc"]
    if path[-1:] == ("[key]",):  # that a key itself is bad, not its value
        path = path[:-1]
    line = nearest_line(lines, path[:-1] if details["type"] == "missing" else path)
    return Mistake(line, dotted(path), _text(details, path, model))


def _text(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]} is expected, not {_sort_of(given)}"
    if kind in _BOUNDS:
        limit, words = _BOUNDS[kind]
        return f"must be {words} {_number(context[limit])}, is {_number(given)}"
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"unknown key; {_proposal(str(path[-1]), table_at(model, path[:-1]))}"
        case "literal_error":
            return _choice(given, context["expected"])
        case "too_short":
            return "must not be empty"
        case "finite_number":
            return "must be a finite number"
        case _:
            return details["msg"]


def table_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model of the table at `path`; None where there is none, or one with any keys."""
    sort: Any = model
    for key in path:
        if isinstance(sort, type) and issubclass(sort, BaseModel):
            field = sort.model_fields.get(str(key))
            sort = _bare(field.annotation) if field else None
        elif get_origin(sort) in (dict, tuple):
            sort = _bare(get_args(sort)[1 if get_origin(sort) is dict else 0])
        else:
            return None
    return sort if isinstance(sort, type) and issubclass(sort, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """The type itself, without what is said beside it and without None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return next(_bare(sort) for sort in get_args(annotation) if sort is not NoneType)
    return annotation


def _proposal(key: str, table: type[BaseModel] | None) -> str:
    # `name` is filled in by us from the table's own name.
    known = [known for known in table.model_fields if known != "name"] if table else []
    near = get_close_matches(key, known, 1)
    return f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known)}"


def _choice(given: Any, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    told = "must be one of " + ", ".join(f'"{choice}"' for choice in choices)
    if not isinstance(given, str):
        return f"{told}, not {_sort_of(given)}"
    near = get_close_matches(given, choices, 1)
    return f'{told}; did you mean "{near[0]}"?' if near else told


def _number(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    # Python refuses to write integers of some thousand digits.
    return str(value) if abs(value) < 1 << 64 else "far beyond it"


def _sort_of(value: Any) -> str:
    for sorts, name in _SORTS:
        if isinstance(value, sorts):
            return name
    return "this"


_SORTS: Final[tuple[tuple[Any, str], ...]] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number with a fraction"),
    (str, "a string"),
    (list, "an array"),
    (Mapping, "a table"),
    (datetime, "a date and time"),
    (date, "a date"),
    (time, "a time of day (quotes are missing)"),
)
