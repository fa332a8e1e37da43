"""The catalogue: points are the truth, summaries a cache that may be stale, lost or forged."""

from __future__ import annotations

import random

import pytest

from backpoint_repo.catalog import COMPACT_AFTER, MERGE_AFTER, Catalog, PointSummary, summarize
from backpoint_repo.format import Kind, object_key
from backpoint_repo.point import Disk, Point
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import NOON, keys_of, new_repository


def point_of(number: int, vm: str = "vm") -> Point:
    disk = Disk("disk0", 1 << 30, bytes(32), 1 << 20, "source")
    point_id = random.Random(f"{vm} {number}").randbytes(16)
    return Point(point_id, vm, NOON + number, NOON + number, "label", (disk,))


def publish(repository: Repository, point: Point) -> PointSummary:
    repository.sealed.put(Kind.POINT, point.point_id.hex(), point.encode())
    return summarize(point)


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
    assert 0 < len(keys_of(repository.sealed.store, Kind.CATALOG)) <= MERGE_AFTER + 1


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
