"""A table of the configuration: frozen, no key it does not know, and all its mistakes at once.

Pydantic judges each key by itself and stops there when one is wrong; a table that has something to
say on keys seen together says it in `between`, on what the file gave, so that both sorts of mistake
come out of one reading. Knows no table in particular.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

KeyPath = tuple[str | int, ...]
"""Keys and places in arrays, from the top of the file (or of a table) downwards."""


def mistake(text: str) -> PydanticCustomError:
    """A refusal in our own words; they follow the key's name: "must not be empty"."""
    return PydanticCustomError("mistake", "{text}", {"text": text})


def look(table: object, *path: str) -> Any:
    """What a table that nobody has checked yet has at this path; None where it has nothing."""
    for key in path:
        if isinstance(table, BaseModel):
            table = getattr(table, key, None)
        else:
            table = table.get(key) if isinstance(table, Mapping) else None
    return table


class Section(BaseModel):
    """The base of every table."""

    # What is wrong with a secret must not show it, wherever the error ends up.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    may_repeat: ClassVar[frozenset[str]] = frozenset()
    """Arrays in which the same element twice means something."""

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """Mistakes that show only when keys are seen together, each with the key to blame.

        given: the table as it was written, so any key may be missing or of any type (see `look`).
        """
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _check_together(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        found: list[tuple[KeyPath, str]] = []
        if isinstance(data, Mapping):
            found = [*_repeated(data, cls.may_repeat), *cls.between(data)]
        try:
            checked = handler(data)
        except ValidationError as error:
            if not found:
                raise
            raise _joined(cls.__name__, error, found) from None
        if found:
            raise _joined(cls.__name__, None, found)
        return checked


def _repeated(
    table: Mapping[str, Any], may_repeat: frozenset[str]
) -> Iterator[tuple[KeyPath, str]]:
    """TOML refuses a key twice, but not the same in an array: a slip of whoever edits it."""
    for key, array in table.items():
        if isinstance(array, list) and key not in may_repeat:
            seen: dict[str, int] = {}
            for place, element in enumerate(array):
                if seen.setdefault(repr(element), place) != place:
                    yield (key, place), "is in this array already"


def _joined(
    title: str, error: ValidationError | None, found: list[tuple[KeyPath, str]]
) -> ValidationError:
    details = [
        InitErrorDetails(
            type=PydanticCustomError(
                known["type"], "{text}", {**known.get("ctx", {}), "text": known["msg"]}
            ),
            loc=known["loc"],
            input=known["input"],
        )
        for known in (error.errors(include_url=False) if error else ())
    ]
    details += [InitErrorDetails(type=mistake(text), loc=path, input=None) for path, text in found]
    return ValidationError.from_exception_data(title, details, hide_input=True)
