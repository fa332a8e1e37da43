"""Moments in the life of a repository in a directory, seen from outside: somebody puts an object of
some kind just now, or a folder has changed so often.

Only looks; who is killed or stopped then is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backpoint_repo.errors import ObjectDamaged, UnknownFormat
from backpoint_repo.format import Kind, parse_header

Comes = Callable[[], bool]
"""Asked again and again: is the moment there?"""


def put_of(repo: Path, kind: Kind) -> Comes:
    """An object of this kind has been written under its temporary name."""
    known = set(_names(repo / "tmp"))

    def comes() -> bool:
        for name in _names(repo / "tmp"):
            if name not in known and (found := _kind_of(repo / "tmp" / name)) is not None:
                known.add(name)
                if found is kind:
                    return True
        return False

    return comes


def changes_of(folder: Path, count: int) -> Comes:
    """Names came or went in a folder, at least so many times."""
    seen, left = _changed_at(folder), count

    def comes() -> bool:
        nonlocal seen, left
        now = _changed_at(folder)
        seen, left = now, left - (now != seen)
        return left <= 0

    return comes


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _kind_of(path: Path) -> Kind | None:
    """None where nothing is in it yet, or it has gone."""
    try:
        with path.open("rb") as file:
            return parse_header(file.read(64), path.name)
    except (FileNotFoundError, ObjectDamaged, UnknownFormat):
        return None


def _changed_at(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0  # nobody has put anything there yet
