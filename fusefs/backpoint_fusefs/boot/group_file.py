"""A group of VMs that boot together: what a TOML file says of them, checked as a whole.

Decides what may stand in the file and that it makes sense together: each VM once, nobody waiting
for himself. Every mistake is told with its place. Boots nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from backpoint_repo.errors import UsageError
from backpoint_repo.sizes import parse_size

_FILE_MAX: Final = 1 << 20
_MIB: Final = 1 << 20
_MEMORY_MIN: Final = 16
_STRICT: Final = ConfigDict(extra="forbid", frozen=True, strict=True)


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return text


Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Ready(BaseModel):
    """When a member counts as up: one of text (a regular expression on its console), port (TCP, at
    the member's address), screen (has come to rest). timeout: how long that may take."""

    model_config = _STRICT

    text: Annotated[str, AfterValidator(_expression)] | None = None
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    screen: bool = False
    timeout: Seconds = 600.0

    @model_validator(mode="after")
    def _one_sign(self) -> Ready:
        if (self.text is not None) + (self.port is not None) + self.screen != 1:
            raise ValueError("needs one of `text`, `port` and `screen = true`")
        return self


class Member(BaseModel):
    """point: VM@POINT. after: names of members that must be ready before this one starts, wait:
    seconds after that. memory: MiB, None: as the VM had. address: its own in the network, where a
    port is to be asked. ready None: as soon as it has started."""

    model_config = _STRICT

    point: Annotated[str, Field(min_length=1)]
    name: str = ""
    after: list[str] = []
    wait: Seconds = 0.0
    memory: int | None = None
    address: str = ""
    ready: Ready | None = None

    @field_validator("memory", mode="before")
    @classmethod
    def _size(cls, said: object) -> int:
        if not isinstance(said, str):
            raise ValueError('is a size, like "2G"')
        try:
            size = parse_size(said) // _MIB
        except UsageError as error:
            raise ValueError(str(error)) from error
        if size < _MEMORY_MIN:
            raise ValueError(f"{said} is too little memory for a machine")
        return size

    @field_validator("address")
    @classmethod
    def _is_address(cls, said: str) -> str:
        if said:
            IPv4Address(said)
        return said

    @model_validator(mode="after")
    def _reachable(self) -> Member:
        if self.ready is not None and self.ready.port is not None and not self.address:
            raise ValueError("a port can only be asked at an `address`")
        return self

    @property
    def title(self) -> str:
        """Its name, or its VM's."""
        return self.name or self.point.rpartition("@")[0] or self.point


class _Group(BaseModel):
    model_config = _STRICT

    vm: Annotated[list[Member], Field(min_length=1, max_length=64)]


def read_group(path: Path) -> list[Member]:
    """In the order in which they start. Raises UsageError with every mistake, a line each."""
    try:
        members = _Group.model_validate(_parsed(path)).vm
    except ValidationError as error:
        mistakes = [_sentence(one["loc"], one["msg"]) for one in error.errors()]
        raise UsageError("\n".join(f"{path}: {mistake}" for mistake in mistakes)) from error
    mistakes = _contradictions(members)
    if mistakes:
        raise UsageError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return _in_order(members, path)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_MAX + 1)
    except OSError as error:
        raise UsageError(f"the group file {path} cannot be read: {error.strerror}") from error
    if len(text) > _FILE_MAX:
        raise UsageError(f"{path} is too large for a group file")
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def _sentence(place: Sequence[str | int], problem: str) -> str:
    """`vm number 2, ready: needs ...`"""
    words: list[str] = []
    for part in place:
        words += [f"number {part + 1}"] if isinstance(part, int) else [part]
    where = " ".join(words[:2]) + "".join(f", {word}" for word in words[2:])
    return f"{where or 'the file'}: {problem.removeprefix('Value error, ')}"


def _contradictions(members: Sequence[Member]) -> list[str]:
    names = [member.title for member in members]
    twice = [
        f"{name!r} is there twice; give one another `name`"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    missing = [
        f"{member.title!r} is after {name!r}, which is not here"
        for member in members
        for name in member.after
        if name not in names
    ]
    return twice + missing


def _in_order(members: Sequence[Member], path: Path) -> list[Member]:
    """Each behind all that it waits for, else as in the file."""
    ordered: list[Member] = []
    left = list(members)
    while left:
        started = {member.title for member in ordered}
        free = next((one for one in left if started.issuperset(one.after)), None)
        if free is None:
            circle = ", ".join(repr(member.title) for member in left)
            raise UsageError(f"{path}: these wait for each other: {circle}")
        ordered.append(free)
        left.remove(free)
    return ordered
