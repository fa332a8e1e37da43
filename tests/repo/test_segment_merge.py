"""Merging segments: fewer of them, nothing lost whoever merges at once, dies, or may not delete."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import StoreReadOnly, StoreUnavailable
from backpoint_repo.format import Kind
from backpoint_repo.index import Index, ids_of
from backpoint_repo.index_segment import EMPTY_TABLE, Location, PackRef, decode_table
from backpoint_repo.repository import Repository
from backpoint_repo.segment_merge import (
    A_LEVEL_HOLDS,
    SegmentFacts,
    merge_after_backup,
    merge_segments,
    packs_gone,
    plan_merges,
)
from backpoint_repo.segment_shelf import put_segment
from backpoint_repo.store.contract import Piece
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.store_rights import may_delete
from small_repository import assert_clean, back_up, keys_of, new_repository, read_disk, reopened
from synthetic_disk import random_disk

KIB, MIB = 1 << 10, 1 << 20
GROUP = 20 * MIB
PACKS = [PackRef(Kind.DATA_PACK, bytes([n]) * 16) for n in range(40)]
Entry = tuple[bytes, PackRef]

facts = st.lists(
    st.tuples(st.integers(1, 30 * MIB), st.booleans()).map(
        lambda row: SegmentFacts("", row[0], row[1])
    ),
    max_size=60,
).map(lambda rows: [SegmentFacts(str(at), r.size, r.stale) for at, r in enumerate(rows)])


@given(facts)
def test_a_plan_takes_each_segment_once_and_all_stale_ones(segments: list[SegmentFacts]) -> None:
    groups = plan_merges(segments, GROUP)
    named = [name for group in groups for name in group]
    assert len(named) == len(set(named))
    by_name = {found.name: found for found in segments}
    assert {found.name for found in segments if found.stale} <= set(named)
    for group in groups:
        parts = [by_name[name] for name in group]
        assert len(parts) > 1 or parts[0].stale, "one by itself is worth nothing"
        assert len(parts) == 1 or sum(part.size for part in parts) <= GROUP
        assert all(part.stale or part.size <= GROUP // 2 for part in parts)


@given(st.lists(st.integers(1, 10 * MIB), max_size=200))
def test_repeated_merging_leaves_few_segments(sizes: list[int]) -> None:
    """Small ones are bounded by the levels, large ones by what is stored."""
    names = map(str, itertools.count())
    there = [SegmentFacts(next(names), size) for size in sizes]
    for _ in range(20):
        groups = plan_merges(there, GROUP)
        if not groups:
            break
        for group in groups:
            parts = [found for found in there if found.name in group]
            there = [found for found in there if found.name not in group]
            there.append(SegmentFacts(next(names), sum(part.size for part in parts)))
    assert not plan_merges(there, GROUP), "it comes to rest"
    small = [found for found in there if found.size <= GROUP // 2]
    assert len(small) <= 4 * (A_LEVEL_HOLDS - 1)


def test_nothing_is_done_to_few_or_to_large_ones() -> None:
    few = [SegmentFacts(str(at), 10 * KIB) for at in range(A_LEVEL_HOLDS - 1)]
    large = [SegmentFacts(f"large{at}", GROUP) for at in range(50)]
    assert plan_merges([*few, *large], GROUP) == []
    assert plan_merges([*few, *large, SegmentFacts("8th", KIB)], GROUP) == [
        ("8th", *(found.name for found in few))
    ]


def content_id(number: int) -> bytes:
    return number.to_bytes(32, "big")


def fill(repository: Repository, segments: int = A_LEVEL_HOLDS) -> set[Entry]:
    """So many segments; what they say."""
    index = Index(repository.sealed)
    entries = {(content_id(at), PACKS[at % 20]) for at in range(10 * segments)}
    rows = [(one, Location(pack, 8, 10)) for one, pack in sorted(entries)]
    for start in range(0, len(rows), 10):
        index.add(rows[start : start + 10])
    return entries


def said(repository: Repository) -> set[Entry]:
    """What all segments say together, read one by one."""
    entries = set()
    for key in keys_of(repository.sealed.store, Kind.INDEX):
        name = key.rpartition("/")[2]
        table = decode_table(repository.sealed.get(Kind.INDEX, name), key)
        for row, one in enumerate(table.ids()):
            entries.add((one.tobytes(), table.location(row).pack))
    return entries


def count(repository: Repository) -> int:
    return len(keys_of(repository.sealed.store, Kind.INDEX))


def test_many_become_one_and_the_index_follows(repository: Repository) -> None:
    entries = fill(repository, 9)
    index = Index(repository.sealed)
    done = merge_segments(repository.sealed, index)
    assert (done.replaced, done.written) == (9, 1)
    assert count(repository) == 1
    assert said(repository) == entries
    assert index.shelf.count == 1
    assert index.known(ids_of([one for one, _ in entries])).all()
    assert merge_segments(repository.sealed, index).replaced == 0


def test_entries_of_packs_that_are_gone_are_dropped(repository: Repository) -> None:
    entries = fill(repository, 3)
    gone = frozenset(PACKS[:7])
    index = Index(repository.sealed)
    assert merge_segments(repository.sealed, index).replaced == 0, "three are few"
    assert merge_segments(repository.sealed, index, gone).replaced
    assert said(repository) == {entry for entry in entries if entry[1] not in gone}
    assert not index.packs() & gone
    assert merge_segments(repository.sealed, index, gone).replaced == 0
    merge_segments(repository.sealed, index, frozenset(PACKS))
    assert count(repository) == 0


def test_which_packs_are_gone(repository: Repository) -> None:
    back_up(repository, "vm", random_disk(MIB, 1))
    index = Index(repository.sealed)
    assert not packs_gone(repository.sealed, index)
    fill(repository, 2)
    assert packs_gone(repository.sealed, index) == frozenset(PACKS[:20])
    merge_segments(repository.sealed, index, packs_gone(repository.sealed, index))
    assert not packs_gone(repository.sealed, index)
    assert_clean(repository)


def test_a_reader_who_looks_meanwhile_forgets_nothing(repository: Repository) -> None:
    entries = fill(repository, 12)
    reader = Index(repository.sealed)
    reader.refresh()
    merge_segments(repository.sealed, Index(repository.sealed))
    ids = ids_of([one for one, _ in entries])
    assert reader.known(ids).all()
    reader.refresh()
    assert reader.known(ids).all()
    assert reader.shelf.count == 1, "what was merged is not held twice"


class Interrupted(MemoryStore):
    """Does something of the test's before each change of the index."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[str], None] = lambda _: None

    def put(self, key: str, pieces: list[Piece]) -> None:
        if key.startswith("index/"):
            self.before("put")
        super().put(key, pieces)

    def delete(self, key: str) -> None:
        if key.startswith("index/"):
            self.before("delete")
        super().delete(key)

    def get(self, key: str) -> bytes:
        if key.startswith("index/"):
            self.before("get")
        return super().get(key)


@pytest.mark.parametrize("step", range(40))
def test_a_second_merger_at_any_step_loses_nothing(step: int) -> None:
    store = Interrupted()
    repository = new_repository(store)
    entries = fill(repository)
    steps = itertools.count()

    def other(_: str) -> None:
        if next(steps) == step:
            store.before = lambda _: None
            merge_segments(repository.sealed, Index(repository.sealed))

    store.before = other
    merge_segments(repository.sealed, Index(repository.sealed))
    store.before = lambda _: None
    assert said(repository) == entries
    fill(repository)
    merge_segments(repository.sealed, Index(repository.sealed))
    assert said(repository) == entries
    assert count(repository) <= 2


@pytest.mark.parametrize("step", range(40))
def test_a_merger_that_dies_at_any_step_loses_nothing(step: int) -> None:
    store = Interrupted()
    repository = new_repository(store)
    entries = fill(repository)
    steps = itertools.count()

    def die(_: str) -> None:
        if next(steps) == step:
            raise StoreUnavailable("gone")

    store.before = die
    index = Index(repository.sealed)
    with contextlib.suppress(StoreUnavailable):
        merge_segments(repository.sealed, index)
    store.before = lambda _: None
    assert said(repository) == entries
    index.refresh()
    assert index.known(ids_of([one for one, _ in entries])).all()


@pytest.mark.parametrize("step", range(30))
def test_a_refresh_at_any_step_of_a_merger_misses_nothing(step: int) -> None:
    """The reader's listing is caught between the parts and what they became."""
    store = Interrupted()
    repository = new_repository(store)
    entries = fill(repository)
    ids = ids_of([one for one, _ in entries])
    steps = itertools.count()
    reader = Index(repository.sealed)

    def merge(_: str) -> None:
        if next(steps) == step:
            store.before = lambda _: None
            merge_segments(repository.sealed, Index(repository.sealed))

    store.before = merge
    reader.refresh()
    assert reader.known(ids).all()


class MovingList(MemoryStore):
    """Lists like a folder that is read piece by piece: once, all is merged between two pieces."""

    armed = False

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        found = list(super().list(prefix))
        if not (self.armed and prefix == "index/"):
            yield from found
            return
        self.armed = False
        self.merge()
        there = {one.key for one in super().list(prefix)}
        # The new segment lies in the part that was read already, the old ones in the rest.
        yield from (one for one in found if one.key in there)

    merge: Callable[[], object] = staticmethod(lambda: None)


def test_a_listing_that_shows_neither_parts_nor_union_is_not_the_last() -> None:
    store = MovingList()
    repository = new_repository(store)
    entries = fill(repository)
    store.merge = lambda: merge_segments(repository.sealed, Index(repository.sealed))
    store.armed = True
    reader = Index(repository.sealed)
    reader.refresh()
    assert reader.known(ids_of([one for one, _ in entries])).all()


class AppendOnly(MemoryStore):
    """Refuses to delete."""

    def delete(self, key: str) -> None:
        raise StoreReadOnly("append only")


def test_who_may_not_delete_adds_one_empty_segment_and_no_more() -> None:
    repository = new_repository(AppendOnly())
    fill(repository)
    before = count(repository)
    for _ in range(5):
        index = Index(repository.sealed)
        index.refresh()
        assert merge_after_backup(repository.sealed, index).replaced == 0
    assert count(repository) == before + 1
    assert not may_delete(repository.sealed)


def test_what_somebody_without_the_right_left_does_not_stop_who_has_it(
    repository: Repository,
) -> None:
    """The empty segment goes first, and is no longer there when the others are merged."""
    fill(repository)
    put_segment(repository.sealed, EMPTY_TABLE)
    before = count(repository)
    merged = merge_segments(repository.sealed, Index(repository.sealed))
    assert merged.replaced == before - 1
    assert count(repository) == merged.written


def test_who_may_delete_removes_what_says_nothing(repository: Repository) -> None:
    put_segment(repository.sealed, EMPTY_TABLE)
    assert may_delete(repository.sealed)
    assert count(repository) == 0
    assert may_delete(repository.sealed)
    assert count(repository) == 0


def test_a_damaged_segment_is_left_for_who_rebuilds(repository: Repository) -> None:
    entries = fill(repository)
    repository.sealed.store.put("index/" + "0" * 32, [b"BCKPNT\x05\x01 and nothing good"])
    index = Index(repository.sealed)
    merge_segments(repository.sealed, index)
    assert keys_of(repository.sealed.store, Kind.INDEX)[0] == "index/" + "0" * 32
    repository.sealed.store.delete("index/" + "0" * 32)
    assert said(repository) == entries


def test_large_unions_are_split(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = fill(repository)
    monkeypatch.setattr("backpoint_repo.segment_merge.SEGMENT_ENTRIES_MAX", 30)
    done = merge_segments(repository.sealed, Index(repository.sealed))
    assert done.written == 3
    assert said(repository) == entries


def test_backups_keep_their_segments_few(repository: Repository) -> None:
    disks = [random_disk(MIB // 4, seed) for seed in range(20)]
    points = [back_up(repository, "vm", disk) for disk in disks]
    assert count(repository) < A_LEVEL_HOLDS + 2
    fresh = reopened(repository)
    for point, disk in zip(points, disks, strict=True):
        assert read_disk(fresh, point.disks[0]) == disk.content(0, MIB // 4)
    fresh.index.refresh()
    assert sum(map(len, fresh.index.tables())) == len(
        np.unique(np.concatenate([table.ids() for table in fresh.index.tables()]), axis=0)
    )
    assert_clean(repository)
