"""What is tidied up at the end: the index forgets packs that nobody misses, and no others."""

from __future__ import annotations

from backpoint_repo.format import Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import LIFETIME_S
from backpoint_repo.point import Point
from backpoint_repo.trash import put_trash
from repo.collecting.collect_scene import Scene, filled_disk, flip, lease_of
from small_repository import StandingClock, keys_of, reopened


def indexed(scene: Scene) -> set[PackRef]:
    """Packs that segments name."""
    index = reopened(scene.repository).index
    index.refresh()
    return {pack for table in index.tables() for pack in table.packs}


def own_packs(scene: Scene, point: Point) -> set[PackRef]:
    """All that was stored with this point."""
    packs = {*scene.packs(Kind.DATA_PACK), *scene.packs(Kind.NODE_PACK)}
    return {pack for pack in packs if scene.sealed.directory(*pack).session == point.point_id}


def lose(scene: Scene, packs: set[PackRef]) -> None:
    """Packs that are gone without a word in trash."""
    for pack in packs:
        scene.store.delete(object_key(pack.kind, pack.name.hex()))


def test_packs_that_nobody_misses_leave_the_index(scene: Scene) -> None:
    kept, gone = scene.point("a", filled_disk(1)), scene.point("b", filled_disk(2))
    unneeded = own_packs(scene, gone)
    scene.remove(gone)
    lose(scene, unneeded)
    assert unneeded < indexed(scene)
    scene.collect()
    assert indexed(scene) == own_packs(scene, kept)
    scene.assert_whole()


def test_what_is_missed_stays_in_the_index(scene: Scene) -> None:
    """Backups learn from it what is lost; what has a copy elsewhere is not missed."""
    kept, gone = scene.point("a", filled_disk(1)), scene.point("b", filled_disk(2))
    missed, unneeded = own_packs(scene, kept), own_packs(scene, gone)
    lost = {pack for pack in missed if pack.kind is Kind.DATA_PACK}
    scene.remove(gone)
    lose(scene, lost | unneeded)
    scene.collect()
    assert indexed(scene) == missed
    scene.point("c", filled_disk(1))
    scene.collect()
    assert not lost & indexed(scene)
    scene.assert_whole()


def test_damage_is_marked_once(scene: Scene) -> None:
    """A pack that it keeps in trash is met again and again, and leaves no heap of marks."""
    scene.point("a", filled_disk(1))
    (pack,) = scene.packs()
    put_trash(scene.sealed, 1, [pack], 0, b"o" * 16, 1.0)
    flip(scene.store, pack, int(scene.sealed.directory(*pack).offsets[0]) + 40)
    for _ in range(2):
        report = scene.collect()
        assert "run heal" in report.damaged[0]
        assert len(keys_of(scene.store, Kind.DAMAGE)) == 1
    assert pack in scene.packs()


def test_who_was_refreshed_while_the_collector_slept_is_not_ended(scene: Scene) -> None:
    """It sleeps while it reads leases: what it has read is older than its clock by then."""
    clock = StandingClock()
    scene.repository.clock = clock
    mount = lease_of(scene, 0)

    def sleep() -> None:
        clock.now += LIFETIME_S + 1

    report = scene.collect(scene.meddled("get", "leases/", sleep))
    assert report.revoked == ()
    mount.refresh()
    assert not mount.lost
    mount.release()
