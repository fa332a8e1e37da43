"""Damage: what is not known to be unneeded stays, and what is spoiled is never the reason to lose
more."""

from __future__ import annotations

import pytest

from backpoint_repo.collecting import collect as collecting
from backpoint_repo.errors import ObjectDamaged, StoreUnavailable
from backpoint_repo.exclusions import mark_damaged, read_exclusions
from backpoint_repo.format import HEADER, MAGIC, Kind, object_key
from backpoint_repo.index import Index, stored_packs
from backpoint_repo.index_segment import PackRef
from backpoint_repo.trash import put_trash, read_trash
from faults.failing_store import FailingStore
from repo.collecting.collect_scene import SIZE, Scene, filled_disk, flip
from small_repository import back_up, read_disk, reopened


@pytest.fixture
def half(scene: Scene) -> Scene:
    """One of two points of a VM is removed: its packs are half used. Another VM's are dead."""
    first, _ = scene.history("a", 2)
    scene.remove(first, scene.point("b", filled_disk(3)))
    return scene


def needed_copy(scene: Scene) -> tuple[PackRef, int]:
    """A live data blob of a pack that will be compacted: the pack, the blob's row."""
    plan = scene.collect(dry_run=True).plan
    assert plan is not None
    pack = next(one.usage.pack for one in plan.repack if one.usage.pack.kind is Kind.DATA_PACK)
    ids = scene.live_chunks()
    listed = scene.sealed.directory(*pack).ids
    return pack, next(at for at in range(len(listed)) if listed[at].tobytes() in ids)


def spoil(scene: Scene, pack: PackRef, row: int) -> bytes:
    directory = scene.sealed.directory(*pack)
    flip(scene.store, pack, int(directory.offsets[row]) + 40)
    return bytes(directory.ids[row])


@pytest.mark.parametrize("what", ["damaged", "newer"])
def test_a_point_that_cannot_be_read_stops_it(half: Scene, what: str) -> None:
    """What it needs is unknown, so nothing goes, and what is in trash stays too."""
    spoiled = half.point("c", filled_disk(5))
    key = object_key(Kind.POINT, spoiled.point_id.hex())
    data = half.store.get(key)
    bad = data[:-1] + b"x" if what == "damaged" else HEADER.pack(MAGIC, Kind.POINT, 99) + data[8:]
    half.store.delete(key)
    half.store.put(key, [bad])
    put_trash(half.sealed, 1, list(stored_packs(half.sealed)), 0, b"o" * 16, 1.0)
    before = set(stored_packs(half.sealed))
    report = half.collect()
    assert (report.freed, report.copied, report.trashed_packs) == (0, 0, 0)
    assert key in report.stopped[0]
    assert "delete it" in report.stopped[0]
    assert set(stored_packs(half.sealed)) == before
    half.store.delete(key)
    half.store.put(key, [data])
    assert half.collect().freed_packs == len(before)
    half.assert_whole()
    half.assert_tidy()


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_a_map_that_cannot_be_read_stops_it(half: Scene, what: str) -> None:
    spoiled = half.point("c", filled_disk(5))
    half.repository.index.refresh()
    place = half.repository.index.copies(spoiled.disks[0].root)[0]
    if what == "missing":
        half.store.delete(object_key(place.pack.kind, place.pack.name.hex()))
    else:
        flip(half.store, place.pack, place.offset + 50)
    before = half.stored()
    report = half.collect()
    assert (report.freed, report.trashed_packs) == (0, 0)
    assert spoiled.point_id.hex() in report.stopped[0]
    assert half.stored() == before
    half.remove(spoiled)
    assert half.collect().freed > SIZE
    half.assert_whole()


def test_a_store_that_does_not_answer_ends_it(half: Scene) -> None:
    """It says nothing of what is needed."""

    def refuse() -> None:
        raise StoreUnavailable("cannot read it now")

    before = set(stored_packs(half.sealed))
    for at in range(1, half.count_calls() // 2, 5):
        failing = FailingStore(half.store, at, refuse, stays=True)
        with pytest.raises(StoreUnavailable):
            half.collect(half.through(failing))
        half.assert_whole()
    assert before


def test_a_spoiled_blob_is_not_copied(half: Scene) -> None:
    """Its pack is left alone, the copy marked and told; all else is collected."""
    pack, row = needed_copy(half)
    content_id = spoil(half, pack, row)
    report = half.collect()
    assert "damaged" in report.damaged[0]
    assert report.freed > SIZE
    assert report.copied < 5000
    assert pack in set(stored_packs(half.sealed))
    assert pack not in read_trash(half.sealed).packs
    assert (content_id, pack) in read_exclusions(half.sealed).damaged
    # From now on that is known.
    plan = half.collect().plan
    assert plan is not None
    assert [one.reason for one in plan.kept if one.usage.pack == pack] == [
        "a copy in it is marked as damaged and there is no good one: heal it"
    ]


def test_a_spoiled_blob_in_trash_keeps_its_pack(half: Scene) -> None:
    """It may still be healed; whatever else it holds is readable meanwhile."""
    pack, row = needed_copy(half)
    put_trash(half.sealed, 1, list(stored_packs(half.sealed)), 0, b"o" * 16, 1.0)
    directory = half.sealed.directory(*pack)
    offset = int(directory.offsets[row]) + 40
    content_id = spoil(half, pack, row)
    report = half.collect()
    assert set(stored_packs(half.sealed)) & read_trash(half.sealed).packs == {pack}
    assert "run heal" in report.damaged[0]
    assert (content_id, pack) in read_exclusions(half.sealed).damaged
    # Nor does it go the next time; but when it is right again (parity does that).
    assert half.collect().freed_packs == 0
    flip(half.store, pack, offset)
    for name in list(half.sealed.names(Kind.DAMAGE)):
        half.sealed.delete(Kind.DAMAGE, name)
    assert half.collect().freed_packs == 1
    half.assert_whole()
    half.assert_tidy()


def test_a_spoiled_copy_that_was_healed_goes(half: Scene) -> None:
    """The owner can tell that the new copy is good; an agent cannot, and leaves the pack alone."""
    pack, row = needed_copy(half)
    content_id = spoil(half, pack, row)
    mark_damaged(half.sealed, [(content_id, pack)], 1.0)
    content = next(iter(half.contents.values()))
    disk = filled_disk(0)
    disk.write(0, content)
    half.repository = reopened(half.repository)
    half.point("healing", disk)
    assert read_disk(reopened(half.repository), back_up(half.repository, "c", disk).disks[0])
    assert half.collect().freed > SIZE
    assert pack in set(stored_packs(half.sealed))
    report = half.collect(reopened(half.repository))
    assert report.damaged == ()
    assert pack not in set(stored_packs(half.sealed))
    for point in half.repository.catalog.refresh():
        half.contents.setdefault(point.point_id, content)
    half.assert_whole()
    half.assert_tidy()


def test_a_mark_alone_does_not_delete_the_only_copy(half: Scene) -> None:
    """Somebody marks everything as damaged, and puts everything into trash."""
    packs = list(stored_packs(half.sealed))
    copies = [(row.tobytes(), pack) for pack in packs for row in half.sealed.directory(*pack).ids]
    mark_damaged(half.sealed, copies, 1.0)
    put_trash(half.sealed, 1, packs, 0, b"o" * 16, 1.0)
    report = half.collect()
    assert report.copied == 0
    owner = reopened(half.repository)
    for point_id, content in half.contents.items():
        assert read_disk(owner, owner.point(point_id).disks[0]) == content


def test_a_pack_whose_directory_is_spoiled_stays(half: Scene) -> None:
    """Nobody can say what it holds."""
    plan = half.collect(dry_run=True).plan
    assert plan is not None
    dead = plan.dead[0].usage
    flip(half.store, dead.pack, dead.size - 40)
    report = half.collect()
    assert dead.pack in set(stored_packs(half.sealed))
    assert report.plan is not None
    reason = next(one.reason for one in report.plan.kept if one.usage.pack == dead.pack)
    assert reason.startswith("what it holds is not known")
    put_trash(half.sealed, 2, [dead.pack], 0, b"o" * 16, 1.0)
    assert "what it holds is not known" in half.collect().damaged[0]
    assert dead.pack in set(stored_packs(half.sealed))
    half.assert_whole()


def test_trash_that_cannot_be_read_ends_it(half: Scene) -> None:
    half.store.put(f"trash/{1:016x}", [b"no trash"])
    before = half.objects()
    with pytest.raises(ObjectDamaged, match="trash/"):
        half.collect()
    assert half.objects() == before


def test_a_reading_that_fails_once_is_no_damage(half: Scene) -> None:
    """Memory and cables fail, too: what decides is a second look."""

    class Flickering(FailingStore):
        def get_range(self, key: str, offset: int, length: int) -> bytes:
            data = super().get_range(key, offset, length)
            if key.startswith("packs/") and length > 100_000 and offset < 100:
                return b"\xff" + data[1:]
            return data

    report = half.collect(half.through(Flickering(half.store, 0, lambda: None)))
    assert report.damaged == ()
    assert report.copied > 0
    half.assert_whole()
    half.assert_tidy()


def test_others_that_are_always_faster(half: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up after some rounds and says so, instead of looking for ever."""
    monkeypatch.setattr(collecting, "ROUNDS_MAX", 2)

    class Busy(FailingStore):
        def put(self, key: str, pieces: list[bytes | bytearray | memoryview]) -> None:
            if key.startswith("trash/"):
                put_trash(half.sealed, int(key[6:], 16), [], 0, b"o" * 16, 1.0)
            super().put(key, pieces)

    report = half.collect(half.through(Busy(half.store, 0, lambda: None)))
    assert "other collectors" in report.stopped[0]
    assert report.freed == 0
    half.assert_whole()
    assert half.collect().freed > SIZE
    half.assert_tidy()


def test_what_is_known_of_a_lost_pack_stays_as_long_as_it_is_missed(scene: Scene) -> None:
    """It is in no trash. The next backup of the VM reads only what changed, and learns from the
    index what else it has to store; then nothing names the pack any more."""
    disk = filled_disk(1)
    point = scene.point("a", disk)
    (lost,) = scene.packs()
    scene.sealed.delete(lost.kind, lost.name.hex())
    for _ in range(2):
        scene.collect()
        assert lost in reread(scene).packs()
    made = back_up(reopened(scene.repository), "a", disk, changed=[])
    scene.contents[made.point_id] = scene.contents[point.point_id]
    scene.assert_whole()
    scene.collect()
    assert lost not in reread(scene).packs()
    assert not reread(scene).has_losses()
    scene.assert_whole()
    scene.assert_tidy()


def reread(scene: Scene) -> Index:
    """The index as a new process sees it."""
    index = Index(scene.sealed)
    index.refresh()
    return index
