"""The catalogue: points are the truth, summaries a cache that may be stale, lost or forged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_repo.block_place import BlockPlace
from backpoint_repo.catalog import Catalog, PointSummary, summarize
from backpoint_repo.catalog_merge import COMPACT_AFTER, MERGE_AFTER, ROWS_MAX, plan_merges
from backpoint_repo.errors import StoreReadOnly
from backpoint_repo.format import Kind, object_key
from backpoint_repo.lease_book import put_void
from backpoint_repo.point import Disk, Point
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.cached_store import settle
from backpoint_repo.store.memory import MemoryStore
from small_repository import NOON, PASSPHRASE, keys_of, new_repository


def point_of(number: int, vm: str = "vm") -> Point:
    disk = Disk("disk0", 1 << 30, bytes(32), 1 << 20, "source")
    point_id = random.Random(f"{vm} {number}").randbytes(16)
    return Point(point_id, vm, NOON + number, NOON + number, "label", (disk,))


def publish(repository: Repository, point: Point) -> PointSummary:
    repository.sealed.put(Kind.POINT, point.point_id.hex(), point.encode())
    return summarize(point)


class AddOnly(MemoryStore):
    """Refuses to delete until it is allowed."""

    allowed = False

    def delete(self, key: str) -> None:
        if not self.allowed:
            raise StoreReadOnly("add only")
        super().delete(key)


class CountingStore(MemoryStore):
    gets = 0

    def get(self, key: str) -> bytes:
        self.gets += key.startswith("points/")
        return super().get(key)


def test_listed_by_vm_and_time(repository: Repository) -> None:
    expected = [publish(repository, point_of(n, vm)) for vm in ("a", "b") for n in range(5)]
    assert Catalog(repository.sealed).refresh() == expected


def test_new_points_appear_and_removed_ones_go(repository: Repository) -> None:
    catalog = Catalog(repository.sealed)
    one = publish(repository, point_of(1))
    assert catalog.refresh() == [one]
    two = publish(repository, point_of(2))
    assert catalog.refresh() == [one, two]
    repository.sealed.delete(Kind.POINT, one.point_id.hex())
    assert catalog.refresh() == [two]
    repository.sealed.put(Kind.VOID, "ab" * 16, encode_record({}))
    assert catalog.refresh() == [two]


@pytest.mark.parametrize("seed", range(3))
def test_compaction_changes_no_listing(seed: int) -> None:
    rng = random.Random(seed)
    repository = new_repository(MemoryStore())
    writer = Catalog(repository.sealed)
    there: dict[bytes, PointSummary] = {}
    for number in range(1500):
        summary = publish(repository, point_of(number))
        there[summary.point_id] = summary
        if rng.random() < 0.05 and there:
            gone = rng.choice(sorted(there))
            del there[gone]
            repository.sealed.delete(Kind.POINT, gone.hex())
        if rng.random() < 0.02:
            repository.sealed.put(Kind.VOID, rng.randbytes(16).hex(), encode_record({}))
        if rng.random() < 0.03:
            writer.refresh()
            writer.compact()
    expected = sorted(there.values(), key=lambda point: point.time)
    assert writer.refresh() == expected
    assert Catalog(repository.sealed).refresh() == expected
    assert 0 < len(keys_of(repository.sealed.store, Kind.CATALOG)) <= 2 * MERGE_AFTER


def test_a_compacted_catalogue_saves_reading_points() -> None:
    store = CountingStore()
    repository = new_repository(store)
    for number in range(400):
        publish(repository, point_of(number))
    writer = Catalog(repository.sealed)
    writer.refresh()
    writer.compact()
    store.gets = 0
    assert len(Catalog(repository.sealed).refresh()) == 400
    assert store.gets == 0
    publish(repository, point_of(1000))
    assert len(Catalog(repository.sealed).refresh()) == 401
    assert store.gets == 1


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2 * ROWS_MAX), max_size=100))
def test_merging_ends_and_leaves_few(sizes: list[int]) -> None:
    """However many objects there are: each step merges some of a level, until none has too many."""
    there = {f"{number:03}": size for number, size in enumerate(sizes)}
    points, steps = sum(sizes), 0
    while groups := plan_merges(there):
        for group in groups:
            assert len(group) >= MERGE_AFTER
            there["-".join(group)] = sum(there.pop(name) for name in group)
        steps += 1
    assert steps <= 5
    assert sum(there.values()) == points
    assert sum(2 * size <= ROWS_MAX for size in there.values()) < 5 * MERGE_AFTER


def test_who_may_not_delete_adds_one_object_for_many_points_and_merges_nothing() -> None:
    """Each of its points is listed once, however often it publishes; a maintainer merges them."""
    store = AddOnly()
    repository = new_repository(store)
    writer = Catalog(repository.sealed)
    for number in range((MERGE_AFTER + 3) * (COMPACT_AFTER + 1)):
        publish(repository, point_of(number))
        if number % 13 == 0:
            writer.refresh()
            writer.compact()
    objects = len(keys_of(store, Kind.CATALOG))
    assert objects == MERGE_AFTER + 2
    for _ in range(5):
        writer.refresh()
        writer.compact()
    assert len(keys_of(store, Kind.CATALOG)) == objects
    assert len(keys_of(store, Kind.INDEX)) == 1, "one that says nothing, to learn what is allowed"
    store.allowed = True
    maintainer = Catalog(repository.sealed)
    expected = maintainer.refresh()
    maintainer.compact()
    assert len(keys_of(store, Kind.CATALOG)) <= 2
    assert Catalog(repository.sealed).refresh() == expected


def test_a_point_that_was_added_is_compacted_with_those_that_were_listed() -> None:
    """Also by who has listed none: what others have in the catalogue stays there."""
    store = CountingStore()
    repository = new_repository(store)
    for number in range(COMPACT_AFTER):
        publish(repository, point_of(number))
    writer = Catalog(repository.sealed)
    writer.refresh()
    publish(repository, point_of(COMPACT_AFTER))
    writer.add(point_of(COMPACT_AFTER))
    writer.compact()
    assert len(keys_of(store, Kind.CATALOG)) == 1
    stranger = Catalog(repository.sealed)
    publish(repository, point_of(1000))
    stranger.add(point_of(1000))
    stranger.compact()
    store.gets = 0
    assert len(Catalog(repository.sealed).refresh()) == COMPACT_AFTER + 2
    assert store.gets == 1


def test_what_was_removed_during_a_long_backup_is_not_written_as_lost(
    repository: Repository,
) -> None:
    for number in range(COMPACT_AFTER + 9):
        publish(repository, point_of(number))
    backup = Catalog(repository.sealed)
    backup.refresh()
    for number in range(5):
        repository.sealed.delete(Kind.POINT, point_of(number).point_id.hex())
    backup.add(point_of(1000))
    publish(repository, point_of(1000))
    backup.compact()
    later = Catalog(repository.sealed)
    assert len(keys_of(repository.sealed.store, Kind.CATALOG)) == 1
    assert later.gone() == []
    assert len(later.refresh()) == COMPACT_AFTER + 9 - 5 + 1


def test_a_point_in_whose_place_a_void_was_put_is_listed_no_more(tmp_path: Path) -> None:
    """Whatever a catalogue object, a process or a cache still has of it."""
    store = MemoryStore()
    repository = new_repository(store)
    points = [publish(repository, point_of(number)) for number in range(COMPACT_AFTER + 2)]
    place = BlockPlace(tmp_path / "cache", 64 << 20, named=True)
    cached = open_repository(store, PASSPHRASE, repository.clock, blocks=place)
    assert cached.point(points[0].point_id)
    settle(cached.sealed.store)
    assert repository.catalog.refresh() == points
    repository.catalog.compact()
    repository.sealed.delete(Kind.POINT, points[0].point_id.hex())
    assert put_void(repository.sealed, points[0].point_id, bytes(16), NOON)
    assert repository.catalog.refresh() == points[1:]
    assert Catalog(repository.sealed).refresh() == points[1:]
    assert cached.catalog.refresh() == points[1:]
    assert repository.catalog.broken == cached.catalog.broken == {}


def test_forgetting_writes_only_what_listed_the_removed(repository: Repository) -> None:
    catalog = Catalog(repository.sealed)
    for number in range(3 * (COMPACT_AFTER + 1)):
        publish(repository, point_of(number))
        if number % (COMPACT_AFTER + 1) == COMPACT_AFTER:
            catalog.refresh()
            catalog.compact()
    before = set(keys_of(repository.sealed.store, Kind.CATALOG))
    gone = point_of(1).point_id.hex()
    repository.sealed.delete(Kind.POINT, gone)
    assert catalog.gone() == [gone]
    catalog.refresh()
    catalog.forget([gone])
    after = set(keys_of(repository.sealed.store, Kind.CATALOG))
    assert len(before) == len(after) == 3
    assert len(before & after) == 2
    assert Catalog(repository.sealed).gone() == []
    assert Catalog(repository.sealed).refresh() == catalog.refresh()


@pytest.mark.parametrize("data", [b"", b"garbage", b"BCKPNT\x0b\x02" + bytes(80)])
def test_a_lost_catalogue_is_no_loss(repository: Repository, data: bytes) -> None:
    for number in range(COMPACT_AFTER + 5):
        publish(repository, point_of(number))
    writer = Catalog(repository.sealed)
    writer.refresh()
    writer.compact()
    (key,) = keys_of(repository.sealed.store, Kind.CATALOG)
    repository.sealed.store.delete(key)
    repository.sealed.store.put(key, [data])
    assert len(Catalog(repository.sealed).refresh()) == COMPACT_AFTER + 5


@pytest.mark.parametrize(
    "row",
    [
        [],
        [7],
        ["text"],
        list(summarize(point_of(1)))[:-2],
        [*list(summarize(point_of(1)))[:2], float("nan"), *list(summarize(point_of(1)))[3:]],
        [*list(summarize(point_of(1)))[:2], 1e300, *list(summarize(point_of(1)))[3:]],
        [*list(summarize(point_of(1)))[:4], "0", *list(summarize(point_of(1)))[5:]],
    ],
    ids=range(7),
)
def test_rows_of_a_wrong_shape_are_not_believed(repository: Repository, row: list[object]) -> None:
    expected = [publish(repository, point_of(n)) for n in range(COMPACT_AFTER + 5)]
    repository.sealed.put(Kind.CATALOG, "00", encode_record({"points": [row]}))
    assert Catalog(repository.sealed).refresh() == expected


def test_rows_of_an_older_program_are_of_no_live_session(repository: Repository) -> None:
    """They have a column less; and those of a later one may have more."""
    points = [publish(repository, point_of(n)) for n in range(COMPACT_AFTER + 5)]
    rows = [list(point)[:-1] for point in points[:3]] + [[*point, "later"] for point in points[3:]]
    repository.sealed.put(Kind.CATALOG, "00", encode_record({"points": rows}))
    assert Catalog(repository.sealed).refresh() == points
    assert not any(point.branch for point in points)


BAD_POINTS = {
    "garbage": b"garbage",
    "newer": b"BCKPNT\x06\x02" + bytes(80),
    "another kind": b"BCKPNT\x04\x01" + bytes(80),
    "empty": b"",
}


@pytest.mark.parametrize("data", BAD_POINTS.values(), ids=BAD_POINTS.keys())
def test_a_damaged_point_is_named_and_the_others_are_listed(
    repository: Repository, data: bytes
) -> None:
    good = publish(repository, point_of(1))
    repository.sealed.store.put(object_key(Kind.POINT, "ab" * 16), [data])
    repository.sealed.store.put("points/README", [b"a stray file"])
    catalog = Catalog(repository.sealed)
    assert catalog.refresh() == [good]
    assert set(catalog.broken) == {"ab" * 16, "README"}
    catalog.compact()
    repository.sealed.store.delete("points/README")
    assert catalog.refresh() == [good]
    assert set(catalog.broken) == {"ab" * 16}


@pytest.mark.parametrize("when", [float("nan"), float("inf"), -1.0, 1e18])
def test_a_point_of_no_time_is_damaged(repository: Repository, when: float) -> None:
    """A hostile agent's point must not break the listing of everybody's."""
    good = publish(repository, point_of(1))
    bad = point_of(2)
    strange = Point(bad.point_id, bad.vm, when, NOON, "", ())
    repository.sealed.put(Kind.POINT, bad.point_id.hex(), strange.encode())
    catalog = Catalog(repository.sealed)
    assert catalog.refresh() == [good]
    assert list(catalog.broken) == [bad.point_id.hex()]


def test_a_generation_that_cannot_grow_is_damaged(repository: Repository) -> None:
    bad = point_of(2)
    strange = Point(bad.point_id, "vm", NOON, NOON, "", (), generation=2**64 - 1)
    repository.sealed.put(Kind.POINT, bad.point_id.hex(), strange.encode())
    with repository.begin_backup("vm") as session:
        assert session.publish(time=None, label="").generation == 0
