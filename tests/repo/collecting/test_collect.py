"""Collecting: what nothing needs goes, and everything that something needs stays readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.collecting import plan as planning
from backpoint_repo.errors import StoreFull, StoreReadOnly
from backpoint_repo.format import Kind
from backpoint_repo.index import Index
from backpoint_repo.point_note import PointNote, put_note
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.memory import MemoryStore
from faults.failing_store import FailingStore
from repo.collecting.collect_scene import CHUNK_MAX, SIZE, Scene, filled_disk
from small_repository import back_up, keys_of, new_repository, reopened
from synthetic_disk import SyntheticDisk


def test_removed_points_give_their_space_back(scene: Scene) -> None:
    """Dead packs go whole, half-dead ones are compacted, with the agent credential alone."""
    first, _ = scene.history("a", 2)
    other = scene.point("b", filled_disk(3))
    before = scene.stored()
    scene.remove(first, other)
    report = scene.collect()
    # Where the border between the halves is cut depends on the repository's keys.
    assert abs(report.copied - SIZE // 2) < CHUNK_MAX + 5000
    freed = before - scene.stored()
    assert abs(freed - 3 * SIZE // 2) < CHUNK_MAX + 50000
    assert report.freed - report.copied == pytest.approx(freed, abs=20000)
    assert (report.waiting, report.stopped, report.damaged, scene.waited) == ((), (), (), 0)
    scene.assert_whole()
    scene.assert_tidy()


def test_nothing_to_do_leaves_no_trace(scene: Scene) -> None:
    scene.history("a", 3)
    before = scene.objects()
    report = scene.collect()
    assert (report.epoch, report.freed_packs, report.trashed_packs) == (None, 0, 0)
    assert scene.objects() == before


def test_without_points_nothing_is_left(scene: Scene) -> None:
    scene.remove(*scene.history("a", 3))
    scene.collect()
    assert scene.stored() == 0
    assert Index(scene.sealed).packs() == set()
    scene.assert_whole()
    scene.assert_tidy()


def test_what_was_freed_can_be_stored_again(scene: Scene) -> None:
    """No index remembers packs that are gone."""
    disk = filled_disk(5)
    scene.remove(scene.point("a", disk))
    scene.collect()
    scene.point("a", disk)
    scene.point("b", disk)
    scene.assert_whole()
    scene.assert_tidy()


def test_no_more_is_copied_than_allowed(scene: Scene) -> None:
    """The most wasteful pack first; the rest the next time."""
    kept = []
    for seed, share in enumerate((0.25, 0.5, 0.1)):
        disk = filled_disk(seed)
        whole = scene.point(f"vm{seed}", disk)
        disk.punch(0, int(SIZE * (1 - share)) // 4096 * 4096)
        kept.append(scene.point(f"vm{seed}", disk))
        scene.remove(whole)
    limit = int(0.3 * SIZE) + 2 * CHUNK_MAX
    report = scene.collect(max_repack=limit)
    assert 0 < report.copied <= limit
    assert report.plan is not None
    left = [one for one in report.plan.kept if "beyond what may be copied" in one.reason]
    assert [one.usage.live // (SIZE // 4) for one in left] in ([1], [2])
    scene.assert_whole()
    assert scene.collect(max_repack=0).copied == 0
    assert scene.collect().copied > 0
    scene.assert_whole()
    scene.assert_tidy()


def test_a_crowd_of_small_packs_is_merged(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Increments leave one of each kind a day. Blobs of many sessions share a pack then."""
    monkeypatch.setattr(planning, "SMALL_MANY", 8)
    for seed in range(8):
        scene.point(f"vm{seed}", filled_disk(seed, 64 << 10))
    assert len(scene.packs()) == 8
    scene.collect()
    assert len(scene.packs()) == len(scene.packs(Kind.NODE_PACK)) == 1
    pack = next(iter(scene.packs()))
    assert len(scene.sealed.directory(*pack).data_keys) == 8
    scene.assert_whole()
    scene.assert_tidy()


def test_disks_of_every_shape(scene: Scene) -> None:
    """Empty, all zero, with several levels of nodes, with files; maps that share subtrees."""
    scene.point("empty", SyntheticDisk(0))
    scene.point("zero", SyntheticDisk(1 << 20))
    wide = SyntheticDisk(20 << 30)
    wide.write(19 << 30, bytes(range(256)) * 64)
    wide.write(5 << 20, bytes(range(1, 257 - 1)) * 64)
    with scene.repository.begin_backup("filed") as session:
        session.store_file("vm.vmx", b"x" * 200_000)
        filed = session.publish(time=None, label="")
    made = [scene.point("sparse", filled_disk(9)) for _ in range(2)]
    large = back_up(scene.repository, "wide", wide)
    scene.remove(made[0], scene.point("gone", filled_disk(10)))
    assert scene.collect().freed_packs
    owner = reopened(scene.repository)
    reader = owner.open_disk(owner.point(large.point_id).disks[0], ChunkCache(1 << 20))
    for offset in (19 << 30, 5 << 20, 7 << 30):
        assert reader.read(offset, 16384) == wide.content(offset, 16384)
    assert owner.read_file(owner.point(filed.point_id).files[0]) == b"x" * 200_000
    scene.remove(large, filed)
    scene.collect()
    scene.assert_whole()
    scene.assert_tidy()


def test_a_preview_writes_nothing(scene: Scene) -> None:
    """It says what would be, and that is what happens then."""
    first, _ = scene.history("a", 2)
    scene.remove(first, scene.point("b", filled_disk(3)))
    before = scene.objects()
    store = FailingStore(scene.store, 0, lambda: None, only=frozenset({"put", "delete"}))
    watched = reopened(scene.repository)
    object.__setattr__(watched.sealed, "store", store)
    preview = scene.collect(watched, dry_run=True)
    assert store.calls == []
    assert scene.objects() == before
    report = scene.collect()
    assert preview.plan is not None
    assert report.plan is not None
    assert (preview.plan.dead, preview.plan.repack) == (report.plan.dead, report.plan.repack)
    assert preview.plan.copied == report.copied


def test_notes_and_marks_on_what_is_gone_go(scene: Scene) -> None:
    point, kept = scene.point("a", filled_disk(1)), scene.point("b", filled_disk(2))
    for one in (point, kept):
        put_note(scene.sealed, PointNote(one.point_id, "aftermath", 1.0, {}))
    scene.remove(point)
    assert scene.collect().dropped_notes == 1
    assert [key[6:38] for key in keys_of(scene.store, Kind.NOTE)] == [kept.point_id.hex()]
    scene.assert_whole()


def test_without_the_right_to_delete(tmp_path: Path) -> None:
    """One sentence says what is missing; nothing is lost."""

    class AppendOnly(LocalStore):
        def delete(self, key: str) -> None:
            raise StoreReadOnly(f"cannot delete {key}: Operation not permitted")

    scene = Scene(new_repository(LocalStore(tmp_path)))
    scene.remove(*scene.history("a", 2)[:1], scene.point("b", filled_disk(3)))
    limited = reopened(scene.repository)
    object.__setattr__(limited.sealed, "store", AppendOnly(tmp_path))
    with pytest.raises(StoreReadOnly, match="collecting needs the right to delete"):
        scene.collect(limited)
    scene.assert_whole()


def test_a_full_store_is_emptied_all_the_same() -> None:
    """There is no room for copies; what is dead goes, and makes some."""

    class Full(MemoryStore):
        full = False

        def put(self, key: str, pieces: list[bytes | bytearray | memoryview]) -> None:
            if self.full and key.startswith(("packs/", "nodes/")):
                raise StoreFull(f"cannot write {key}: No space left on device")
            super().put(key, pieces)

    store = Full()
    scene = Scene(new_repository(store))
    first, _ = scene.history("a", 2)
    scene.remove(first, scene.point("b", filled_disk(3)))
    store.full = True
    report = scene.collect()
    assert report.freed > SIZE
    assert "no room for copies" in report.notes[0]
    store.full = False
    scene.assert_whole()
    assert scene.collect().copied > 0
    scene.assert_whole()
    scene.assert_tidy()


def test_a_file_that_is_no_point_by_its_name_does_not_stop_it(scene: Scene) -> None:
    first, _ = scene.history("a", 2)
    scene.store.put("points/notes.txt", [b"somebody's"])
    scene.remove(first)
    assert scene.collect().stopped == ()
    scene.store.delete("points/notes.txt")
    scene.assert_whole()
    scene.assert_tidy()
