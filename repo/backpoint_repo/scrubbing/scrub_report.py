"""What a scrub is asked for and what it came to. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from backpoint_repo.check_report import DamagedObject, HurtRange
from backpoint_repo.scrubbing.readings import PackAges

EVERY_S: Final = 30 * 86400.0


@dataclass(frozen=True)
class ScrubTerms:
    """every_s: a pack is due when it was last read so many seconds ago. oldest_first: all packs by
    age, due or not. rate: bytes a second at most, None for as fast as it goes. for_s: seconds after
    which no further pack is begun. save_bytes, save_s: what is read again at most when a scrub is
    killed, whichever comes first."""

    every_s: float = EVERY_S
    oldest_first: bool = False
    rate: int | None = None
    for_s: float | None = None
    save_bytes: int = 4 << 30
    save_s: float = 120.0


@dataclass(frozen=True)
class ScrubReport:
    """packs, read_bytes: what was read. damaged: packs found wrong now, and those found earlier or
    missing that hurt a point. hurt: what cannot be read right because of them.

    unreadable: what could not be read now, which is neither good nor damaged. marked: copies newly
    marked as damaged. due: packs still to be read. notes: what is odd and harms nobody.
    """

    packs: int = 0
    read_bytes: int = 0
    damaged: tuple[DamagedObject, ...] = ()
    hurt: tuple[HurtRange, ...] = ()
    unreadable: tuple[str, ...] = ()
    marked: int = 0
    due: int = 0
    ages: PackAges = field(default_factory=PackAges)
    notes: tuple[str, ...] = ()
