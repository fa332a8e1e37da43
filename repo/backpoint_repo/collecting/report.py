"""What a collection was asked for and what it came to: values for people and scripts."""

from __future__ import annotations

from dataclasses import dataclass

from backpoint_repo.collecting.plan import CollectionPlan


@dataclass(frozen=True)
class CollectTerms:
    """max_repack: bytes that compaction may copy, None: any number. wait_s: how long to wait for
    leases before what was put into trash is left to the next collection."""

    max_repack: int | None = None
    wait_s: float = 180.0
    dry_run: bool = False


@dataclass(frozen=True)
class Waiting:
    """Packs in trash that somebody may still read from. size: bytes. by: who, for the user."""

    epoch: int
    packs: int
    size: int
    by: tuple[str, ...]


@dataclass(frozen=True)
class Pinned:
    """Bytes that only this holder needs, of points that are removed."""

    by: str
    size: int


@dataclass
class CollectReport:
    """Packs and bytes that were deleted, put into trash, copied. stopped: why nothing (more) could
    be deleted, a sentence each. damaged: what is wrong with packs that were met. revoked: who was
    taken for dead. plan: of the last round."""

    freed_packs: int = 0
    freed: int = 0
    trashed_packs: int = 0
    trashed: int = 0
    copied: int = 0
    epoch: int | None = None
    dropped_notes: int = 0
    plan: CollectionPlan | None = None
    waiting: tuple[Waiting, ...] = ()
    pinned: tuple[Pinned, ...] = ()
    revoked: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
