"""What copying one point comes to, however it is done; what those who copy and those who ask share.

A way of copying is a `CopyPoint`: `resealed.copy_point`, and where both repositories have the same
keys `verbatim.copy_point_verbatim`. Knows no way itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backpoint_repo.disk_ingest import Advance
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository


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
class Base:
    """A point that both repositories have, like the one that is copied: its ids in either."""

    original: bytes
    copy: bytes


@dataclass(frozen=True)
class Copied:
    """point: the copy, as it stands in the destination; its traffic is what copying cost: bytes
    read in the source, new to the destination, stored there. verbatim: as sealed blobs."""

    original: Point
    point: Point
    verbatim: bool


class CopyPoint(Protocol):
    """Makes a point in `target` that shows what `point` shows in `source`, or none.

    All that is recorded of it is kept, with these exceptions: id, created, traffic, duration and
    tool are of the copying; warnings may be added to; parent is the base's copy, if there is a
    base; the capture gets the origin (`origin.py`). The generation is the original's, so that a
    VM's points keep their order. A base that is removed meanwhile is done without.

    The caller holds a lease on `point` (`reading.py`), not on the base. Raises SourceError (bytes
    of the source are damaged or lost), ObjectDamaged, ObjectMissing, UnknownFormat, UsageError
    (what is recorded cannot be), SessionRevoked, and StoreUnavailable of either store.
    """

    def __call__(
        self,
        source: Repository,
        target: Repository,
        point: Point,
        base: Base | None,
        watch: Watch,
    ) -> Copied:
        """See the class."""
