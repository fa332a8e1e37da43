"""An index made from pack directories alone: whatever was wrong with it, and whoever works on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_repo.errors import (
    ObjectMissing,
    StoreReadOnly,
    StoreUnavailable,
    UnknownFormat,
)
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import Index, ids_of, stored_packs
from backpoint_repo.index_rebuild import RebuildReport, rebuild_index
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.point import Point
from backpoint_repo.progress import Steps
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Piece
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.trash import put_trash
from small_repository import (
    NOON,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import SyntheticDisk, random_disk

MIB = 1 << 20
DISK: SyntheticDisk = random_disk(MIB, 1)


def rebuilt(repository: Repository, *, dry_run: bool = False) -> RebuildReport:
    return rebuild_index(repository, Steps(lambda *_: None), dry_run=dry_run)


def segments(repository: Repository) -> list[str]:
    return keys_of(repository.sealed.store, Kind.INDEX)


def entries(repository: Repository) -> set[tuple[bytes, Location]]:
    """What the segments say, as a new process reads them."""
    index = Index(repository.sealed)
    index.refresh()
    assert not index.broken_segments
    return {
        (table.ids(slice(row, row + 1)).tobytes(), table.location(row))
        for table in index.tables()
        for row in range(len(table))
    }


def damage(repository: Repository, key: str, at: int = -20) -> None:
    """Flip a bit; by default one in the trailer of a pack."""
    store = repository.sealed.store
    data = bytearray(store.get(key))
    data[at] ^= 1
    store.delete(key)
    store.put(key, [data])


def packs_of(repository: Repository, kind: Kind) -> list[PackRef]:
    return sorted(pack for pack in stored_packs(repository.sealed) if pack.kind is kind)


def key_of(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())


@pytest.fixture
def point(repository: Repository) -> Point:
    return back_up(repository, "vm", DISK)


def test_what_was_lost_damaged_or_forged_is_as_it_was(repository: Repository, point: Point) -> None:
    back_up(repository, "other", random_disk(MIB, 2))
    true = entries(repository)
    first, second = segments(repository)
    pack = packs_of(repository, Kind.DATA_PACK)[0]
    repository.sealed.store.delete(first)
    damage(repository, second)
    gone = PackRef(Kind.DATA_PACK, bytes(16))
    put_trash(repository.sealed, 1, {gone}, 0, bytes(16), NOON)
    Index(repository.sealed).add(
        [(bytes(32), Location(gone, 8, 1)), (b"x" * 32, Location(pack, 9, 9))]
    )
    report = rebuilt(repository)
    assert (report.packs, report.written, report.replaced) == (4, 1, 2)
    assert not report.damaged
    assert report.entries == len(true)
    assert entries(repository) == true
    assert read_disk(reopened(repository), point.disks[0]) == DISK.content(0, MIB)
    assert back_up(reopened(repository), "third", DISK).traffic.new == 0
    assert_clean(repository)


def test_memory_is_that_of_a_segment(
    repository: Repository, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(repository, "other", random_disk(MIB, 2))
    true = entries(repository)
    monkeypatch.setattr("backpoint_repo.index_rebuild.SEGMENT_ENTRIES_MAX", 1)
    assert rebuilt(repository).written == 4, "one for each pack"
    assert entries(repository) == true


def test_a_dry_run_writes_nothing(repository: Repository, point: Point) -> None:
    damage(repository, segments(repository)[0])
    repository.sealed.put(Kind.CATALOG, "ab" * 16, b"no record")
    store = repository.sealed.store
    before = {found.key: store.get(found.key) for found in store.list("")}
    report = rebuilt(repository, dry_run=True)
    assert (report.packs, report.written, report.replaced) == (2, 1, 1)
    assert [what for what, _ in report.cleared] == ["catalog/" + "ab" * 16]
    assert {found.key: store.get(found.key) for found in store.list("")} == before


def test_what_is_known_of_a_pack_without_directory_stays_known(
    repository: Repository, point: Point
) -> None:
    """Its blobs are whole, and those of nodes can be read without the directory."""
    true = entries(repository)
    (node_pack,) = packs_of(repository, Kind.NODE_PACK)
    damage(repository, key_of(node_pack))
    report = rebuilt(repository)
    assert len(report.damaged) == 1
    assert key_of(node_pack) in report.damaged[0]
    assert report.packs == 1
    assert report.taken_over == sum(place.pack == node_pack for _, place in true)
    assert entries(repository) == true
    assert read_disk(reopened(repository), point.disks[0]) == DISK.content(0, MIB)


class Troubled(MemoryStore):
    """Something of the test's happens when an object is asked for its size, or changed."""

    def __init__(self) -> None:
        super().__init__()
        self.at_size: Callable[[str], None] = lambda _: None
        self.at_change: Callable[[str], None] = lambda _: None

    def size(self, key: str) -> int:
        self.at_size(key)
        return super().size(key)

    def put(self, key: str, pieces: list[Piece]) -> None:
        self.at_change(key)
        super().put(key, pieces)

    def delete(self, key: str) -> None:
        self.at_change(key)
        super().delete(key)


def test_a_pack_that_cannot_be_read_now_is_no_damage() -> None:
    store = Troubled()
    repository = new_repository(store)
    back_up(repository, "vm", DISK)
    true = entries(repository)
    pack = packs_of(repository, Kind.DATA_PACK)[0]

    def fail(key: str) -> None:
        if key == key_of(pack):
            raise StoreUnavailable(f"cannot read {key}: Input/output error")

    store.at_size = fail
    report = rebuilt(repository)
    assert not report.damaged
    assert report.unreadable == (f"cannot read {key_of(pack)}: Input/output error",)
    store.at_size = lambda _: None
    assert entries(repository) == true
    assert_clean(repository)


def test_packs_that_come_and_go_meanwhile() -> None:
    """A backup publishes, and a collector deletes, while directories are read."""
    store = Troubled()
    repository = new_repository(store)
    back_up(repository, "vm", DISK)
    dead = packs_of(repository, Kind.DATA_PACK)[0]
    written = []

    def meanwhile(key: str) -> None:
        store.at_size = lambda _: None
        written.append(back_up(reopened(repository), "late", random_disk(MIB, 3)))
        put_trash(repository.sealed, 1, {dead}, 0, bytes(16), NOON)
        store.delete(key_of(dead))

    store.at_size = meanwhile
    report = rebuilt(repository)
    assert not report.damaged
    assert not report.unreadable
    fresh = reopened(repository)
    assert read_disk(fresh, written[0].disks[0]) == random_disk(MIB, 3).content(0, MIB)
    assert dead not in fresh.index.packs()


def test_what_is_lost_is_not_forgotten(repository: Repository, point: Point) -> None:
    """A pack is gone that was in no trash. The next backup reads only what changed, which is
    nothing; it must learn what to store again."""
    (lost,) = packs_of(repository, Kind.DATA_PACK)
    repository.sealed.delete(lost.kind, lost.name.hex())
    for _ in range(2):
        report = rebuilt(repository)
        assert report.lost == 1
        assert any("are gone" in advice for advice in report.advice)
    back_up(reopened(repository), "vm", DISK, changed=[])
    assert read_disk(reopened(repository), point.disks[0]) == DISK.content(0, MIB)
    assert_clean(repository)


@pytest.mark.parametrize("step", range(8))
def test_one_that_dies_and_one_beside_it_lose_nothing(step: int) -> None:
    store = Troubled()
    repository = new_repository(store)
    point = back_up(repository, "vm", DISK)
    back_up(repository, "other", random_disk(MIB, 2))
    true = entries(repository)
    steps = iter(range(100))

    def other(_: str) -> None:
        if next(steps) == step:
            store.at_change = die
            rebuilt(repository)

    def die(_: str) -> None:
        if next(steps) == 2 * step:
            store.at_change = lambda _: None
            raise StoreUnavailable("gone")

    store.at_change = other
    with contextlib.suppress(StoreUnavailable):
        rebuilt(repository)
    store.at_change = lambda _: None
    assert entries(repository) == true
    rebuilt(repository)
    assert entries(repository) == true
    assert len(segments(repository)) == 1
    assert read_disk(reopened(repository), point.disks[0]) == DISK.content(0, MIB)
    assert_clean(repository)


class AppendOnly(MemoryStore):
    """Refuses to delete, when told to."""

    armed = False

    def delete(self, key: str) -> None:
        if self.armed:
            raise StoreReadOnly("append only")
        super().delete(key)


def test_who_may_not_delete_is_told_before_anything_is_written() -> None:
    store = AppendOnly()
    repository = new_repository(store)
    back_up(repository, "vm", DISK)
    true = entries(repository)
    store.armed = True
    for _ in range(2):
        with pytest.raises(StoreReadOnly, match="does not allow deleting"):
            rebuilt(repository)
    assert len(segments(repository)) == 2, "and one that says nothing"
    assert entries(repository) == true


def test_what_a_newer_program_wrote_is_left_alone(repository: Repository, point: Point) -> None:
    newer = b"BCKPNT\x05\x02 whatever"
    repository.sealed.store.put("index/" + "ef" * 16, [newer])
    report = rebuilt(repository)
    assert repository.sealed.store.get("index/" + "ef" * 16) == newer
    assert "index/" + "ef" * 16 in report.advice[0]
    repository.sealed.store.put("requires/something", [b""])
    with pytest.raises(UnknownFormat, match="something"):
        rebuilt(repository)
    assert rebuilt(repository, dry_run=True).packs == 2


def test_spoiled_caches_are_cleared_and_good_ones_kept(
    repository: Repository, point: Point
) -> None:
    sealed = repository.sealed
    pack = packs_of(repository, Kind.DATA_PACK)[0]
    gone = PackRef(Kind.DATA_PACK, bytes(16))
    repository.index.refresh()
    mark_damaged(sealed, [(b"a" * 32, gone), (b"b" * 32, pack)], NOON)
    good = set(keys_of(sealed.store, Kind.DAMAGE))
    mark_damaged(sealed, [(b"a" * 32, gone)], NOON)
    (over,) = set(keys_of(sealed.store, Kind.DAMAGE)) - good
    sealed.put(Kind.DAMAGE, "ab" * 16, b"no record")
    sealed.store.put("damage/" + "cd" * 16, [b"BCKPNT\x0a\x02 of a newer program"])
    sealed.store.put("catalog/" + "ab" * 16, [b"BCKPNT\x0b\x01 garbage"])
    report = rebuilt(repository)
    assert {what for what, _ in report.cleared} == {
        over,
        "damage/" + "ab" * 16,
        "catalog/" + "ab" * 16,
    }
    assert set(keys_of(sealed.store, Kind.DAMAGE)) == good | {"damage/" + "cd" * 16}
    assert "scrub" in report.advice[0]
    for what, _ in report.cleared:
        with pytest.raises(ObjectMissing):
            sealed.store.get(what)


def test_what_a_crash_left_in_tmp_goes_after_a_day(tmp_path: Path) -> None:
    repository = new_repository(LocalStore(tmp_path / "store"))
    back_up(repository, "vm", DISK)
    folder = tmp_path / "store" / "tmp"
    target = tmp_path / "elsewhere"
    target.write_bytes(b"precious")
    ages = {"aa" * 16: 2 * 86400, "bb" * 16: 3600, "notes.txt": 9 * 86400}
    for name, age in ages.items():
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (NOON - age, NOON - age))
    (folder / ("cc" * 16)).symlink_to(target)
    os.utime(folder / ("cc" * 16), (0, 0), follow_symlinks=False)
    (folder / ("dd" * 16)).mkdir()
    os.utime(folder / ("dd" * 16), (0, 0))
    report = rebuilt(repository)
    assert [what for what, _ in report.cleared] == [str(folder / ("aa" * 16))]
    left = {path.name for path in folder.iterdir()}
    assert left == {"bb" * 16, "cc" * 16, "dd" * 16, "notes.txt"}
    assert target.read_bytes() == b"precious"
    assert_clean(repository)


def test_an_empty_repository(repository: Repository) -> None:
    report = rebuilt(repository)
    assert (report.packs, report.written, report.replaced) == (0, 0, 0)
    assert not Index(repository.sealed).known(ids_of([bytes(32)]))[0]
