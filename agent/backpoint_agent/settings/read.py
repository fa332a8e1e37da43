"""The configuration file, read once: the settings, or every mistake with its line.

Decides what may be read at all and in which order it is judged: text, TOML, content. Opens nothing
that the file names; whether those exist is for whoever uses them, and for `config-check`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from backpoint_agent.errors import ConfigMistakes
from backpoint_agent.settings.lines import find_lines
from backpoint_agent.settings.mistakes import Mistake, content_mistakes, syntax_mistake
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.values import FOLDER
from backpoint_repo.errors import UsageError

VARIABLE: Final = "BACKPOINT_CONFIG"

LARGEST: Final = 1 << 20
"""Bytes. A thousand jobs fit; what is larger is some other file."""

_TOO_DOTTED: Final = re.compile(r"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){64}""")
"""tomllib's time, and our memory, grow with the square of a key's parts."""


def settings_path(given: Path | None, environment: Mapping[str, str]) -> Path:
    """The file named on the command line or in the environment. Raises UsageError for neither."""
    path = given or environment.get(VARIABLE)
    if not path:
        raise UsageError(f"which configuration? Give -c FILE or set {VARIABLE}")
    return Path(path)


def read_settings_file(path: Path) -> Settings:
    """The settings. Raises ConfigMistakes with a line for each mistake; UsageError where the file
    cannot be read at all."""
    found = examine_settings_file(path)
    if isinstance(found, Settings):
        return found
    raise ConfigMistakes("\n".join(mistake.told(str(path)) for mistake in found))


def examine_settings_file(path: Path) -> Settings | list[Mistake]:
    """The settings, or what is wrong, in the file's order. Raises UsageError as above."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        return [Mistake(1, "", "is larger than 1 MiB; this is no configuration")]
    try:
        # Windows editors begin with a byte order mark, which TOML does not know.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [Mistake(line, "", "is not UTF-8 here")]
    return examine_settings(text, path.absolute().parent)


def examine_settings(text: str, folder: Path) -> Settings | list[Mistake]:
    """As the file's; folder: which relative paths are relative to."""
    dotted = _TOO_DOTTED.search(text)
    if dotted is not None:
        line = text.count("\n", 0, dotted.start()) + 1
        return [Mistake(line, "", "has a key of more than 64 parts")]
    try:
        # tomllib does this for files only; line numbers stay as they are.
        text = text.replace("\r\n", "\n")
        document = tomllib.loads(text)
        lines = find_lines(text)
        return Settings.model_validate(document, context={FOLDER: folder})
    except ValidationError as error:
        return content_mistakes(error, Settings, lines)
    except RecursionError:
        return [Mistake(1, "", "has values nested too deeply")]
    except ValueError as error:
        return [syntax_mistake(text, error)]
