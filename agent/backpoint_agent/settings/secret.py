"""Where a secret comes from. The secret itself never stands in the configuration, so the file may
be read by everybody, kept in version control, and shown in a bug report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import model_validator

from backpoint_agent.settings.section import KeyPath, Section, mistake
from backpoint_agent.settings.values import CommandLine, EnvironmentVariable, LocalPath

_SOURCES = ("file", "command", "environment")
_EXAMPLES = '{ file = "..." }, { command = "..." } or { environment = "..." }'


class SecretSettings(Section):
    """Exactly one of the three: a file's first line, a command's, or an environment variable."""

    file: LocalPath | None = None
    command: CommandLine | None = None
    """Split into words as a shell would, and run without one."""
    environment: EnvironmentVariable | None = None

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """One source, not none and not two."""
        named = [source for source in _SOURCES if given.get(source) is not None]
        if len(named) > 1:
            yield (), f"names {' and '.join(named)}; one source is enough"
        elif not named:
            yield (), f"must say where the secret is: {_EXAMPLES}"

    @model_validator(mode="before")
    @classmethod
    def _refuse_plain_secret(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise mistake(f"secrets do not stand in this file; say where it is: {_EXAMPLES}")
        return data
