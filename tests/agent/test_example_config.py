"""The annotated example: valid, complete, and what it shows as defaults are the defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from backpoint_agent.settings.mistakes import table_at
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import examine_settings
from backpoint_agent.settings.section import KeyPath

EXAMPLE: Final = files("backpoint_agent").joinpath("backpoint.example.toml").read_text()
_LEFT_OUT: Final = re.compile(r"^#(?=[a-z0-9_]+ = |\[)", re.MULTILINE)
COMPLETE: Final = _LEFT_OUT.sub("", EXAMPLE)
FOLDER: Final = Path("/etc/backpoint")

ALTERNATIVES: Final = {
    "repository.passphrase",
    "vcenters.main.thumbprint",
    "jobs.nightly.select.everything",
}
"""Left out because they exclude what is there."""


def _keys(table: dict[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every key of a document, tables included."""
    for key, value in table.items():
        yield (*path, key), value
        if isinstance(value, dict):
            yield from _keys(value, (*path, key))
        for place, element in enumerate(value if isinstance(value, list) else ()):
            if isinstance(element, dict):
                yield from _keys(element, (*path, key, place))


def _by_table(document: dict[str, Any]) -> Iterator[tuple[type[BaseModel], str, Any]]:
    """The same with the model that each key belongs to."""
    for path, value in _keys(document):
        model = table_at(Settings, path[:-1])
        if model is not None:
            yield model, str(path[-1]), value


def test_the_example_is_valid() -> None:
    """As it is printed."""
    settings = examine_settings(EXAMPLE, FOLDER)
    assert isinstance(settings, Settings), settings
    assert settings.jobs["nightly"].name == "nightly"


def test_every_key_is_in_the_example() -> None:
    """Live or left out: no key of any table is missing, and so no table either."""
    shown = {(model, key) for model, key, _ in _by_table(tomllib.loads(COMPLETE))}
    reached = {Settings} | {model for model, _ in shown}
    known = {(model, key) for model in reached for key in model.model_fields if key != "name"}
    assert known - shown == set()
    assert len(reached) >= 22


def test_what_is_left_out_is_valid_too() -> None:
    """With every key live the only mistakes are those that exclude each other."""
    found = examine_settings(COMPLETE, FOLDER)
    only = examine_settings(COMPLETE.replace("everything = false", "everything = true"), FOLDER)
    assert isinstance(found, list)
    assert isinstance(only, list)
    assert {mistake.key for mistake in found} < ALTERNATIVES
    assert {mistake.key for mistake in only} == ALTERNATIVES


def test_what_is_left_out_shows_the_default() -> None:
    """Where a key has a default, leaving it out is what the line says; checked one by one."""
    live = set(_keys_only(EXAMPLE))
    compared = 0
    for model, key, value in _by_table(_only_new(tomllib.loads(COMPLETE), live)):
        field = model.model_fields[key]
        default = field.get_default(call_default_factory=True)
        if field.is_required() or default in (None, (), {}) or isinstance(default, BaseModel):
            continue  # an example
        assert value == _as_written(default), (model, key)
        compared += 1
    assert compared >= 35


def _keys_only(text: str) -> Iterator[KeyPath]:
    return (path for path, _ in _keys(tomllib.loads(text)))


def _only_new(table: dict[str, Any], live: set[KeyPath], path: KeyPath = ()) -> dict[str, Any]:
    """The document without the values that the printed example has live."""
    return {
        key: _only_new(value, live, (*path, key)) if isinstance(value, dict) else value
        for key, value in table.items()
        if isinstance(value, dict) or (*path, key) not in live
    }


def _as_written(value: Any) -> Any:
    return (
        list(value)
        if isinstance(value, tuple)
        else str(value)
        if isinstance(value, Path)
        else value
    )


def test_every_key_is_explained() -> None:
    """Each key, or the group of keys it stands in, follows a line of explanation or a header."""
    lines = EXAMPLE.splitlines()
    for place, line in enumerate(lines):
        if re.match(r"#?[a-z0-9_]+ = ", line):
            above = next(text for text in reversed(lines[:place]) if not _is_key(text))
            assert above.startswith(("# ", "[", "#[")), line


def _is_key(line: str) -> bool:
    return re.match(r"#?[a-z0-9_]+ = ", line) is not None


def test_relative_paths_are_below_the_files_folder() -> None:
    """And ~ is somebody's home; both in the example's own places."""
    text = EXAMPLE.replace("/etc/backpoint/vcenter-ca.pem", "ca/vcenter.pem").replace(
        "/mnt/nfs01", "~/nfs01"
    )
    settings = examine_settings(text, FOLDER)
    assert isinstance(settings, Settings)
    assert settings.vcenters["main"].ca_file == FOLDER / "ca/vcenter.pem"
    assert settings.transports.datastores["nfs01"] == Path.home() / "nfs01"
