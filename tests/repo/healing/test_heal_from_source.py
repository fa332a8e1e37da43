"""What live disks still hold is stored anew: afterwards check is clean and every point whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backpoint_repo.format import LEAF_SIZE, Kind
from backpoint_repo.healing.heal import heal
from backpoint_repo.phase_progress import Silent
from backpoint_repo.store.contract import Store
from repo.healing.damage_scene import DAMAGES, VMX, DamageScene, counts, delete
from small_repository import as_agent, keys_of, reopened
from synthetic_disk import SyntheticDisk, random_disk

PACKS = (Kind.DATA_PACK, Kind.NODE_PACK)


def test_a_whole_repository_has_nothing_to_heal(scene: DamageScene) -> None:
    before = {found.key for found in scene.store.list("")}
    report = scene.heal(*scene.live())
    assert (report.chunks, report.nodes, report.stored) == (0, 0, 0)
    assert report.whole
    assert {found.key for found in scene.store.list("")} == before, "and no lease is left"


@pytest.mark.parametrize("kinds", [PACKS, *((kind,) for kind in PACKS)], ids=str)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_every_pack_is_healed(
    pristine: DamageScene,
    store: Store,
    damage: Callable[[Store, str], None],
    kinds: tuple[Kind, ...],
) -> None:
    scene = pristine.on(store)
    for key in scene.keys(*kinds):
        damage(scene.store, key)
    scene.check()
    report = scene.heal(*scene.live())
    assert report.whole, report.lost
    assert not report.unreadable
    assert report.chunks if Kind.DATA_PACK in kinds else report.nodes
    scene.assert_whole()
    assert not keys_of(scene.store, Kind.LEASE)


def test_lost_index_segments_with_their_packs(scene: DamageScene) -> None:
    """Nothing says any more that those chunks ever were: the points want them all the same."""
    for key in scene.keys(*PACKS, Kind.INDEX):
        delete(scene.store, key)
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


def test_the_agent_credential_is_enough(scene: DamageScene) -> None:
    for key in scene.keys(*PACKS):
        delete(scene.store, key)
    assert scene.heal(*scene.live(), repository=as_agent(scene.repository)).whole
    scene.assert_whole()


def test_what_the_disk_no_longer_holds_stays_lost_and_is_named(scene: DamageScene) -> None:
    """Of the older point only what was overwritten since; the file is on no disk."""
    for key in scene.keys(*PACKS):
        delete(scene.store, key)
    report = scene.heal(*scene.live(scene.disk, scene.other))
    assert not report.whole
    old, new = scene.web
    hurt = {(found.point_id, found.disk) for found in report.lost}
    assert hurt == {(old.point_id, "disk0"), (old.point_id, "web.vmx"), (new.point_id, "web.vmx")}
    scene.check()
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


@pytest.mark.parametrize("quick", [False, True])
def test_a_wrong_source_heals_nothing_and_harms_nothing(scene: DamageScene, quick: bool) -> None:
    for key in scene.keys(*PACKS):
        delete(scene.store, key)
    wrong = [random_disk(scene.disk.size, 5), random_disk(4096, 6), SyntheticDisk(0)]
    report = scene.heal(*scene.live(*wrong, quick=quick))
    assert not report.whole
    assert counts(report) == {}
    assert not scene.keys(*PACKS), "and nothing was stored"
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


def test_what_has_moved_is_found_by_reading_the_whole_disk(scene: DamageScene) -> None:
    for key in scene.keys(Kind.DATA_PACK):
        delete(scene.store, key)
    wanted = scene.heal().chunks
    moved = SyntheticDisk(2 * LEAF_SIZE)
    moved.write(40960, scene.disk.content(8192, 400_000))
    quick = counts(scene.heal(*scene.live(moved, quick=True)))
    found = sum(chunks for chunks, _ in quick.values())
    ((chunks, nodes),) = counts(scene.heal(*scene.live(moved))).values()
    assert nodes == 0
    assert found < wanted // 4 < found + chunks
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


def test_a_part_of_the_source_that_cannot_be_read_is_noted_and_the_rest_used(
    scene: DamageScene,
) -> None:
    for key in scene.keys(*PACKS):
        delete(scene.store, key)
    failing = SyntheticDisk(scene.disk.size)
    for offset in (0, LEAF_SIZE):
        failing.write(offset, scene.disk.content(offset, 400_000))
    failing.fails_at = LEAF_SIZE
    report = scene.heal(*scene.live(failing))
    assert any("cannot read at" in note for note in report.notes)
    assert sum(nodes for _, nodes in counts(report).values()) == 0, "its root is lost"
    for way in scene.live():
        scene.heal(way)
    assert scene.heal(*scene.live(failing)).whole
    scene.assert_whole()


def test_one_vm_of_several(scene: DamageScene) -> None:
    for key in scene.keys(*PACKS):
        delete(scene.store, key)
    report = heal(reopened(scene.repository), scene.live(), Silent(), vm="db")
    assert report.whole
    assert report.points == 1
    assert not scene.heal().whole
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()


def test_a_file_is_its_own_source(scene: DamageScene) -> None:
    """`heal --from web.vmx`, as for a disk."""
    for key in scene.keys(*PACKS):
        delete(scene.store, key)
    file = scene.live()[-1]
    assert counts(scene.heal(file)) == {file.title: (-(-len(VMX) // 65536), 0)}
    scene.heal(*scene.live())
    scene.assert_whole()
