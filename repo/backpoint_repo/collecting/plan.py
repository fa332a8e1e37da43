"""Which packs go: dead ones, and those worth copying what is live in them. Pure.

Decides by sizes alone, and says why of every pack, for `--dry-run`. How much of a pack is live, and
what forbids to touch it, is found out by `pack_usage.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from backpoint_repo.format import Kind
from backpoint_repo.index_segment import PackRef
from backpoint_repo.pack import PACK_SIZE
from backpoint_repo.verbatim_copy import KEYS_MAX

SPARSE_WASTE: Final = 0.25
"""Share of waste from which a pack is copied: three bytes are moved for each that is won at worst,
and what stays wasted is a seventh or so of a repository."""
SMALL: Final = PACK_SIZE // 4
"""Packs below this are merged: each costs a request, a directory and a file."""
SMALL_MANY: Final = 100
"""So many small packs are merged although they do not fill one."""

_FEW: Final = "small, but there are too few to merge"
_BEYOND: Final = "beyond what may be copied"


@dataclass(frozen=True)
class PackUsage:
    """size: of the object; live, waste: of the sealed blobs that something needs, and nothing;
    all in bytes. keys: data keys it lists. judged: whether its own directory says so, not the index
    alone. held: why it must be left alone whatever it holds, for the user. stranded: named by trash
    that is over, so that no writer uses it and nobody deletes it."""

    pack: PackRef
    size: int
    live: int
    waste: int
    keys: int = 0
    judged: bool = False
    held: str | None = None
    stranded: bool = False

    @property
    def sparse(self) -> bool:
        """Whether copying the rest is worth it."""
        return self.waste > 0 and self.waste >= SPARSE_WASTE * (self.live + self.waste)

    @property
    def small(self) -> bool:
        """Whether it is one of those that are merged. One with many keys is as large as it gets."""
        return self.size < SMALL and self.keys < KEYS_MAX // 2


@dataclass(frozen=True)
class Verdict:
    """What becomes of a pack, and why, for the user."""

    usage: PackUsage
    reason: str


@dataclass(frozen=True)
class CollectionPlan:
    """dead: go as they are. repack: go when what is live in them is copied, in this order. kept."""

    dead: tuple[Verdict, ...]
    repack: tuple[Verdict, ...]
    kept: tuple[Verdict, ...]

    @property
    def freed(self) -> int:
        """Bytes that the repository becomes smaller."""
        return sum(verdict.usage.size for verdict in self.dead) + sum(
            verdict.usage.size - verdict.usage.live for verdict in self.repack
        )

    @property
    def copied(self) -> int:
        """Bytes that are copied for it."""
        return sum(verdict.usage.live for verdict in self.repack)


def plan_collection(usages: Iterable[PackUsage], max_repack: int | None) -> CollectionPlan:
    """max_repack: bytes that may be copied, None: any number."""
    dead, wanted, kept = list[Verdict](), list[Verdict](), list[Verdict]()
    sparse, small = list[PackUsage](), list[PackUsage]()
    for usage in sorted(usages, key=lambda usage: usage.pack):
        if usage.held is not None:
            kept.append(Verdict(usage, usage.held))
        elif not usage.judged:
            kept.append(Verdict(usage, _why_not_judged(usage)))
        elif usage.live == 0:
            dead.append(Verdict(usage, "nothing needs it"))
        elif usage.stranded:
            wanted.append(Verdict(usage, "trash that is over names it"))
        elif usage.sparse:
            sparse.append(usage)
        elif usage.small:
            small.append(usage)
        else:
            kept.append(Verdict(usage, "in use"))
    wanted += [Verdict(usage, f"{_percent(usage)} % of it is waste") for usage in _by_worth(sparse)]
    for kind in (Kind.DATA_PACK, Kind.NODE_PACK):
        mine = [usage for usage in small if usage.pack.kind is kind]
        if worth_merging(mine):
            wanted += [Verdict(usage, "small: merged with others") for usage in mine]
        else:
            kept += [Verdict(usage, _FEW) for usage in mine]
    repack, later = _within(wanted, max_repack)
    return CollectionPlan(tuple(dead), tuple(repack), (*kept, *later))


def worth_merging(small: Sequence[PackUsage]) -> bool:
    """Whether small packs of one kind fill a pack together, or are a crowd."""
    return len(small) >= SMALL_MANY or sum(usage.live for usage in small) >= PACK_SIZE


def _within(
    wanted: Sequence[Verdict], max_repack: int | None
) -> tuple[list[Verdict], list[Verdict]]:
    """What may be copied, in order, and what must wait. One that does not fit does not keep those
    behind it from being copied."""
    taken, later, copied = [], [], 0
    for verdict in wanted:
        if max_repack is None or copied + verdict.usage.live <= max_repack:
            taken.append(verdict)
            copied += verdict.usage.live
        else:
            later.append(Verdict(verdict.usage, f"{verdict.reason}, {_BEYOND}"))
    return taken, later


def _by_worth(sparse: Iterable[PackUsage]) -> list[PackUsage]:
    """Most won for each byte copied first."""
    return sorted(sparse, key=lambda usage: (-usage.waste / max(1, usage.live), usage.pack))


def _why_not_judged(usage: PackUsage) -> str:
    """Nobody looked into its directory, because it could not go anyway."""
    if usage.sparse:
        return f"{_percent(usage)} % of it is waste, {_BEYOND}"
    return _FEW if usage.small else "in use"


def _percent(usage: PackUsage) -> int:
    return 100 * usage.waste // (usage.live + usage.waste)
