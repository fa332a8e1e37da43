"""What `check` and `scrub` say of damage, for people and as JSON: the same words for the same find.

Knows reports, not how they came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from backpoint_repo.check_report import DamagedObject, HurtRange
from backpoint_repo.point_selector import format_time
from backpoint_repo.scrubbing.readings import PackAges
from backpoint_repo.terminal import print_line, warn

_SHOWN_MAX: Final = 50


def print_damage(
    damaged: Iterable[DamagedObject], hurt: Iterable[HurtRange], unreadable: Iterable[str]
) -> None:
    """A line for each, not too many."""
    lines = [f"damaged: {_damage_text(found)}" for found in damaged]
    lines += [f"hurt: {_hurt_text(item)}" for item in hurt]
    lines += [f"could not look at: {what}" for what in unreadable]
    for line in lines[:_SHOWN_MAX]:
        print_line(line)
    if len(lines) > _SHOWN_MAX:
        print_line(f"... and {len(lines) - _SHOWN_MAX} more; --json lists all")


def print_advice(damaged: Sequence[DamagedObject], hurt: Sequence[HurtRange], marked: int) -> None:
    """What to do about it."""
    if marked:
        are = "chunk is" if marked == 1 else "chunks are"
        print_line(f"{marked} damaged {are} marked: the next backup stores what it finds anew")
    if hurt:
        print_line(
            "`backpoint heal` stores it anew: from parity, another copy, a live disk or another "
            "repository (--from); so does the next backup of a disk that still holds it"
        )
    folders: dict[str, set[str]] = {}
    for found in damaged:
        folders.setdefault(found.mended_by, set()).add(f"{found.folder}/")
    for command, names in sorted(folders.items()):
        if command:
            print_line(
                f"`{command}` clears up {' and '.join(sorted(names))}: no data is lost there"
            )
    for folder, advice in sorted({(found.folder, found.by_hand) for found in damaged}):
        if advice:
            print_line(f"{folder}/: {advice}")


def print_notes(notes: Iterable[str]) -> None:
    """What is odd and harms nobody."""
    for note in notes:
        warn(note)


def ages_text(ages: PackAges) -> str:
    """Empty where no scrub ever ran."""
    if ages.oldest is None:
        return ""
    never = f", {ages.never} never" if ages.never else ""
    return f"packs were last read by scrub on {format_time(ages.oldest)} or later{never}"


def damage_record(
    damaged: Iterable[DamagedObject], hurt: Iterable[HurtRange], ages: PackAges
) -> dict[str, Any]:
    """Fields of a JSON record."""
    return {
        "damaged": [asdict(found) for found in damaged],
        "hurt": [asdict(item) | {"point_id": item.point_id.hex()} for item in hurt],
        "never_read": ages.never,
        "oldest_reading": ages.oldest,
    }


def _damage_text(found: DamagedObject) -> str:
    """Most problems name the object themselves."""
    return f"{found.key}: {found.problem.replace(f'{found.key}: ', '')}"


def _hurt_text(hurt: HurtRange) -> str:
    point = f"{hurt.vm}@{format_time(hurt.time)} ({hurt.point_id.hex()[:8]})"
    bytes_ = f"bytes {hurt.offset} to {hurt.offset + hurt.length}"
    return f"{point} {hurt.disk}, {bytes_}: {hurt.problem}"
