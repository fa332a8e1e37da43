"""What a session is, in one small file: of which point, since when, how far committed.

`session.json`, replaced atomically and durably: the one place where a commit takes effect on the
session. Knows no disks and no names.
"""

from __future__ import annotations

from dataclasses import dataclass


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
