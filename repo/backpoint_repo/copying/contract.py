"""What copying one point comes to, however it is done; what those who copy and those who ask share.

Knows no way of copying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backpoint_repo.disk_ingest import Advance
from backpoint_repo.point import Point


def _untold(_: str) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Who is told while a point is copied. advance: called with bytes of disk dealt with since the
    last call; they add up to the sizes of all disks. tell: of troubles that end nothing, a sentence
    each."""

    advance: Advance = lambda _: None
    tell: Callable[[str], None] = _untold


@dataclass(frozen=True)
class Copied:
    """point: the copy, as it stands in the destination; its traffic is what copying cost: bytes
    read in the source, new to the destination, stored there. verbatim: as sealed blobs."""

    original: Point
    point: Point
    verbatim: bool
