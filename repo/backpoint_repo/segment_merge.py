"""Many small index segments into few large ones, as an LSM tree does, while others read and write.

Several mergers at once, and one that dies anywhere, lose nothing. A segment is deleted only by who
has read it and has *after that* put, durably, others that hold all its entries (but for those of
packs that are gone). Suppose all segments with some entry were deleted, and take the one of them
that was put last: who deleted it had put a later one with the same entry. Two who merge the same
parts store them twice, until a later merge finds the entries equal.

So no merger may delete a segment because *another's* holds the same: two who each trust the other's
would lose both. Which segments are merged is decided here; that packs are gone is for the caller to
know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import Kind
from backpoint_repo.index import SEGMENT_ENTRIES_MAX, Index, stored_packs
from backpoint_repo.index_segment import IndexTable, PackRef, merge_tables
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.segment_shelf import put_segment, segment_sizes
from backpoint_repo.store_rights import may_delete

A_LEVEL_HOLDS: Final = 8
"""Segments of similar size that are left beside each other."""
_GROWTH: Final = 8
_SMALLEST: Final = 64 << 10
"""Bytes stored; segments up to it are of one level."""
GROUP_MAX: Final = 40 * SEGMENT_ENTRIES_MAX
"""Bytes stored that are merged at once, in 200 MB of memory: an entry takes 36 to 42 of them. What
has half of it is large enough for good."""
_ROUNDS_OF_A_WRITER: Final = 4
"""Groups of a second each that a backup merges at its end."""


@dataclass(frozen=True)
class SegmentFacts:
    """size: in bytes, as stored. stale: whether it has entries of packs that are gone."""

    name: str
    size: int
    stale: bool = False


@dataclass(frozen=True)
class Merged:
    """What became of segments: how many were replaced, and by how many."""

    replaced: int = 0
    written: int = 0


def plan_merges(
    segments: Sequence[SegmentFacts], group_max: int = GROUP_MAX
) -> list[tuple[str, ...]]:
    """Groups of names, each to be merged into one segment. Nothing where all is well.

    A level of similar sizes is merged when it is full. Large segments are left alone, unless they
    are stale: those are all written anew, because as long as one entry says that a pack should be
    there, every backup has to look whether its parent needed what was in it.
    """
    levels = defaultdict[int, list[SegmentFacts]](list)
    for found in segments:
        levels[_level(found.size, group_max)].append(found)
    chosen = [found for found in segments if found.stale]
    for level, members in levels.items():
        if level >= 0 and len(members) >= A_LEVEL_HOLDS:
            chosen += [found for found in members if not found.stale]
    return list(_grouped(chosen, group_max))


def merge_segments(
    sealed: SealedStore,
    index: Index,
    gone: Collection[PackRef] = frozenset(),
    groups_max: int | None = None,
) -> Merged:
    """Merge what `plan_merges` says, without the entries of packs that are gone.

    gone: packs that are *known* to have been deleted. Who has no right to delete changes nothing.
    The index follows. Raises what a store raises; then all is as whole as before.
    """
    index.refresh()
    if not plan_merges(_facts(sealed, index, gone)) or not may_delete(sealed):
        return Merged()
    # Planned again: the segment with which that was tried may have been one of a group.
    groups = plan_merges(_facts(sealed, index, gone))[:groups_max]
    done = [_merge(sealed, index, group, gone) for group in groups]
    index.refresh()
    return Merged(sum(one.replaced for one in done), sum(one.written for one in done))


def packs_gone(sealed: SealedStore, index: Index) -> frozenset[PackRef]:
    """Packs that loaded segments name and that are not there: they were before their segment was,
    and are listed now. For who relies on listings anyway: a collector."""
    index.refresh()
    named = index.packs()
    return frozenset(named - set(stored_packs(sealed)))


def merge_after_backup(sealed: SealedStore, index: Index) -> Merged:
    """What a writer does for the next one, in a few seconds at most. Raises what a store raises.

    It drops no entries: that a pack is gone is for collectors to say. A listing that misses packs
    (a folder that was not mounted) would cost their entries in one segment but not in another, and
    such a pack counts as listed.
    """
    if index.shelf.count < A_LEVEL_HOLDS:
        return Merged()
    return merge_segments(sealed, index, groups_max=_ROUNDS_OF_A_WRITER)


def _merge(
    sealed: SealedStore, index: Index, group: tuple[str, ...], gone: Collection[PackRef]
) -> Merged:
    """One group: put what replaces it, then delete it."""
    parts: dict[str, IndexTable] = {}
    for name in group:
        try:
            parts[name] = index.shelf.read(name)
        except ObjectMissing:
            return Merged()  # another merger is at it
        except (ObjectDamaged, UnknownFormat):
            continue  # left for who rebuilds the index
    if not parts:
        return Merged()
    union = merge_tables([table.without(gone) for table in parts.values()])
    starts = range(0, len(union), SEGMENT_ENTRIES_MAX)
    for start in starts:
        put_segment(sealed, union.take(slice(start, start + SEGMENT_ENTRIES_MAX)))
    for name in parts:
        sealed.delete(Kind.INDEX, name)
    return Merged(len(parts), len(starts))


def _facts(sealed: SealedStore, index: Index, gone: Collection[PackRef]) -> list[SegmentFacts]:
    stale = {
        name
        for part in index.shelf.loaded
        if any(pack in gone for pack in part.table.packs)
        for name in part.segments
    }
    sizes = segment_sizes(sealed)
    return [SegmentFacts(name, size, name in stale) for name, size in sorted(sizes.items())]


def _level(size: int, group_max: int) -> int:
    """0 for the smallest ones; -1 for those that are large enough for good."""
    if size > group_max // 2:
        return -1
    level = 0
    while size > _SMALLEST * _GROWTH**level:
        level += 1
    return level


def _grouped(chosen: list[SegmentFacts], group_max: int) -> Iterator[tuple[str, ...]]:
    """As many at a time as are merged at once, the smallest first; one alone only if stale."""
    group: list[SegmentFacts] = []
    for found in sorted(chosen, key=lambda one: (one.size, one.name)):
        if group and sum(one.size for one in group) + found.size > group_max:
            yield from _worth_it(group)
            group = []
        group.append(found)
    yield from _worth_it(group)


def _worth_it(group: list[SegmentFacts]) -> Iterator[tuple[str, ...]]:
    if len(group) > 1 or any(one.stale for one in group):
        yield tuple(one.name for one in group)
