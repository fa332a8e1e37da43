"""Healing beside others and through failures: crashes, collectors, stores that do not answer."""

from __future__ import annotations

import pytest

from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.errors import StoreUnavailable
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import Kind, object_key
from backpoint_repo.healing.heal import heal
from backpoint_repo.index import stored_packs
from backpoint_repo.lease import SEEN_ALL
from backpoint_repo.lease_book import HeldLease, read_leases
from backpoint_repo.phase_progress import Silent
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore
from backpoint_repo.trash import put_trash
from faults.failing_store import AFTER, BEFORE, FailingStore
from repo.healing.damage_scene import DamageScene, delete, replaced, rot_all, spoil_directory
from small_repository import PASSPHRASE, StandingClock, keys_of, reopened

PACKS = (Kind.DATA_PACK, Kind.NODE_PACK)
CHANGING = frozenset({"put", "delete"})


def fail() -> None:
    raise StoreUnavailable("as the test wants it")


def opened(store: FailingStore) -> Repository:
    return open_repository(store, PASSPHRASE, StandingClock())


def damaged(pristine: DamageScene) -> DamageScene:
    """Some of all: rotten without a mark, marked, and gone."""
    scene = pristine.on(MemoryStore())
    data, nodes = scene.keys(Kind.DATA_PACK), scene.keys(Kind.NODE_PACK)
    delete(scene.store, data[0])
    delete(scene.store, nodes[0])
    spoil_directory(scene.store, data[1])
    spoil_directory(scene.store, nodes[1])
    scene.check()
    delete(scene.store, scene.keys(Kind.INDEX)[0])
    return scene


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
def test_a_crash_at_every_change_and_healing_again(pristine: DamageScene, moment: str) -> None:
    spoilt = damaged(pristine)
    at, finished = 0, False
    while not finished:
        at += 1
        scene = spoilt.on(MemoryStore())
        store = FailingStore(scene.store, at, fail, moment, stays=True, only=CHANGING)
        try:
            heal(opened(store), scene.live(), Silent())
            finished = len(store.calls) < at
        except StoreUnavailable:
            pass
        assert scene.heal(*scene.live()).whole
        scene.assert_whole()
    assert at > 6, "a lease, marks, packs and segments are put"


def test_a_store_that_stops_reading_a_pack_leaves_the_rest_to_be_healed(
    scene: DamageScene,
) -> None:
    """What cannot be read now is told, and is neither lost nor healed."""
    blocked = scene.keys(Kind.NODE_PACK)[0]
    for key in scene.keys(Kind.DATA_PACK):
        delete(scene.store, key)
    report = heal(opened(Refusing(scene.store, blocked)), scene.live(), Silent())
    assert report.unreadable
    scene.heal(*scene.live())
    scene.assert_whole()


class Refusing(FailingStore):
    """Does not give one object now."""

    def __init__(self, inner: Store, key: str) -> None:
        super().__init__(inner, 0, fail)
        self._key = key

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if key == self._key:
            fail()
        return super().get_range(key, offset, length)


def test_nothing_stands_on_trash(scene: DamageScene) -> None:
    """A copy in trash may go at any moment: what only it holds is stored again, and then lasts."""
    sealed = scene.repository.sealed
    packs = sorted(stored_packs(sealed))
    assert put_trash(sealed, 1, packs, 0, bytes(16), 1.0)
    ids = sealed.directory(packs[0].kind, packs[0].name).ids
    mark_damaged(sealed, [(row.tobytes(), packs[0]) for row in ids], 1.0)
    report = scene.heal()
    assert report.whole
    assert report.chunks
    assert report.nodes
    for pack in packs:
        scene.store.delete(object_key(pack.kind, pack.name.hex()))
    scene.assert_whole()


def test_what_a_live_disk_gives_is_not_left_to_trash(scene: DamageScene) -> None:
    """The marked copy is bad, the trashed one rotten: the disk has it, and it is stored."""
    for key in scene.keys(*PACKS):
        spoil_directory(scene.store, key)
    scene.check()
    packs = sorted(stored_packs(scene.repository.sealed))
    assert put_trash(scene.repository.sealed, 1, packs, 0, bytes(16), 1.0)
    assert scene.heal(*scene.live()).whole
    for pack in packs:
        scene.store.delete(object_key(pack.kind, pack.name.hex()))
    scene.assert_whole()


def test_a_lease_is_held_meanwhile_that_blocks_no_sweep(scene: DamageScene) -> None:
    seen: list[HeldLease] = []

    class Looking:
        title = "looking"

        def heal(self, wanted: object, session: object, progress: object) -> None:
            seen.extend(read_leases(scene.repository.sealed))

    for key in scene.keys(Kind.DATA_PACK):
        delete(scene.store, key)
    scene.heal(Looking(), *scene.live())
    (lease,) = seen
    assert lease.purpose == "heal"
    assert lease.epoch == SEEN_ALL
    assert not lease.pins
    assert not keys_of(scene.store, Kind.LEASE)
    scene.assert_whole()


def test_a_collector_afterwards_keeps_what_was_healed(scene: DamageScene) -> None:
    """Also where it copies what is left of packs that hold both rot and what nobody needs."""
    for key in scene.keys(*PACKS):
        rot_all(scene.store, key)
    scene.check()
    spoilt = set(scene.keys(*PACKS))
    assert scene.heal(*scene.live()).whole
    scene.remove("web")
    collect(reopened(scene.repository), CollectTerms(), Silent(), lambda _: None)
    assert not spoilt <= set(scene.keys(*PACKS)), "some is gone"
    scene.assert_whole()


def test_a_broken_point_is_told_and_hinders_nothing(scene: DamageScene) -> None:
    key = object_key(Kind.POINT, scene.web[0].point_id.hex())
    point = scene.store.get(key)
    replaced(scene.store, key, point[:-1])
    for pack in scene.keys(Kind.DATA_PACK):
        delete(scene.store, pack)
    report = scene.heal(*scene.live())
    assert [item.key for item in report.broken] == [key]
    assert not report.lost
    assert not report.whole
    replaced(scene.store, key, point)
    assert scene.heal(*scene.live()).whole
    scene.assert_whole()
