"""`GuestFilesystem.stats` for readers that gain nothing from looking up many files at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backpoint_fusefs.guest.filesystem import FileId, GuestDamaged, Stat


def single_stats(stat: Callable[[FileId], Stat], files: Sequence[FileId]) -> list[Stat | None]:
    """One by one; None for one that is damaged."""
    found: list[Stat | None] = []
    for file in files:
        try:
            found.append(stat(file))
        except GuestDamaged:
            found.append(None)
    return found
