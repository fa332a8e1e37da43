"""A plan of `guest/root/`: which volume appears at which path, and what could not be placed.

Values only; made by `choose.py`, carried out by the mount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

NOTES_MAX: Final = 200
"""Sentences of one plan. A guest can have a million lines in its /etc/fstab."""


class Mount(NamedTuple):
    """path: absolute, `/` itself for the guest's root; of Windows `/C`, `/D`, ...

    subvolume: the path of a btrfs subvolume from the top of its filesystem, b"" for the top itself;
    None on every other filesystem.
    """

    path: bytes
    volume_name: str
    subvolume: bytes | None = None


@dataclass(frozen=True, slots=True)
class RootPlan:
    """kind "unix": mounts begins with `/`, and a path comes before those below it. "windows": one
    mount for each drive letter, none at `/`. "none": no mounts, and notes say why.

    notes: sentences for a person: what is not as the guest has it, and why.
    """

    kind: Literal["unix", "windows", "none"]
    mounts: tuple[Mount, ...] = ()
    notes: tuple[str, ...] = ()


def limited(notes: list[str]) -> tuple[str, ...]:
    """Each once, in their order, and no more than a person would read."""
    once = tuple(dict.fromkeys(notes))
    if len(once) <= NOTES_MAX:
        return once
    return (*once[:NOTES_MAX], f"And {len(once) - NOTES_MAX} more of such notes, left out.")
