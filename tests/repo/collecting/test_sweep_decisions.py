"""What is waited for, and what stands in for what: decisions that mutants changed unnoticed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from backpoint_repo.collecting import sweep
from backpoint_repo.collecting.collect import collect
from backpoint_repo.collecting.report import CollectTerms
from backpoint_repo.format import HEADER, MAGIC, Kind, object_key
from backpoint_repo.index import Index, stored_packs
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.lease import MOUNT, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases
from backpoint_repo.phase_progress import Silent
from backpoint_repo.trash import put_trash, read_trash
from faults.failing_store import FailingStore
from repo.collecting.collect_scene import Scene, filled_disk
from small_repository import as_agent, keys_of


def test_nobody_is_waited_for_where_nothing_is_left_to_delete(scene: Scene) -> None:
    """The newest epoch's object stays when its packs are gone; who comes later has not seen it."""
    scene.remove(scene.point("a", filled_disk(1)))
    assert scene.collect().freed_packs == 2
    assert read_trash(scene.sealed).waiting == [1]
    mount = Lease(scene.sealed, b"m" * 16, LeaseTerms(MOUNT, 0), scene.repository.clock)
    report = scene.collect(wait_s=9)
    assert (report.waiting, scene.waited) == ((), 0.0)
    mount.release()
    scene.assert_tidy()


@pytest.mark.parametrize("newer", [False, True], ids=["rot", "of a newer program"])
def test_a_pack_that_cannot_be_read_stands_in_for_nothing(scene: Scene, newer: bool) -> None:
    """Somebody indexes all that is needed as if it lay in a pack that nobody here can read."""
    scene.remove(scene.history("a", 2)[0])
    packs = list(stored_packs(scene.sealed))
    other = PackRef(Kind.DATA_PACK, b"\x00" * 16)
    head = HEADER.pack(MAGIC, Kind.DATA_PACK, 99 if newer else 1)
    scene.store.put(object_key(other.kind, other.name.hex()), [head + b"z" * 100_000])
    claims = []
    for pack in packs:
        directory = scene.sealed.directory(*pack)
        if pack.kind is Kind.DATA_PACK:
            rows = zip(directory.ids, directory.lengths.tolist(), strict=True)
            claims += [(row.tobytes(), Location(other, 8, length)) for row, length in rows]
    Index(scene.sealed).add(claims)
    put_trash(scene.sealed, 1, packs, 0, b"h" * 16, 1.0)
    report = scene.collect()
    assert report.freed_packs == len(packs)
    assert report.copied > 0
    scene.store.delete(object_key(other.kind, other.name.hex()))
    scene.assert_whole()


def newer(scene: Scene, pack: PackRef) -> None:
    """The pack is of a format that nobody here can read."""
    key = object_key(pack.kind, pack.name.hex())
    data = scene.store.get(key)
    scene.store.delete(key)
    scene.store.put(key, [HEADER.pack(MAGIC, pack.kind, 99) + data[HEADER.size :]])


@pytest.mark.parametrize("trashed", [False, True])
def test_a_pack_of_a_newer_program_stays(scene: Scene, trashed: bool) -> None:
    """What it holds is not known; that ends no collection."""
    scene.remove(scene.point("a", filled_disk(1)))
    (data,) = scene.packs()
    newer(scene, data)
    if trashed:
        put_trash(scene.sealed, 1, [data], 0, b"o" * 16, 1.0)
    report = scene.collect()
    assert report.freed_packs == 1
    assert set(stored_packs(scene.sealed)) == {data}
    assert report.stopped == ()
    assert report.plan is not None
    told = report.damaged if trashed else [one.reason for one in report.plan.kept]
    assert told[0].startswith("what it holds is not known")


class AtCompaction(Silent):
    """Something happens when packs were judged and are about to be compacted."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def phase(self, name: str, total: int) -> None:
        if name == "compacting":
            self._act()


@pytest.mark.parametrize("how", ["rot", "of a newer program", "gone"])
def test_a_pack_that_cannot_be_read_any_more_when_it_is_compacted(scene: Scene, how: str) -> None:
    """It is left alone, and all else goes."""
    first, _ = scene.history("a", 2)
    scene.remove(first, scene.point("b", filled_disk(3)))
    plan = scene.collect(dry_run=True).plan
    assert plan is not None
    pack = next(one.usage.pack for one in plan.repack if one.usage.pack.kind is Kind.DATA_PACK)
    key = object_key(pack.kind, pack.name.hex())
    intact = scene.store.get(key)

    def spoil() -> None:
        if how == "of a newer program":
            newer(scene, pack)
        else:
            scene.store.delete(key)
        if how == "rot":
            scene.store.put(key, [intact[:-40] + bytes(40)])

    terms = CollectTerms(None, 0.0, False)
    report = collect(as_agent(scene.repository), terms, AtCompaction(spoil), lambda _: None)
    assert pack not in read_trash(scene.sealed).packs
    assert report.trashed_packs >= len(plan.dead)
    assert report.trashed >= sum(one.usage.size for one in plan.dead)
    scene.store.delete(key)
    scene.store.put(key, [intact])
    scene.assert_whole()


@pytest.mark.parametrize("limit", ["_COPIED_AT_ONCE", "_DELETED_AT_ONCE"])
def test_room_is_made_while_copies_are_made(
    scene: Scene, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is nearly full has room for few copies at once."""
    monkeypatch.setattr(sweep, limit, 1)
    for seed in range(3):
        scene.point(f"vm{seed}", filled_disk(seed))
    put_trash(scene.sealed, 1, list(stored_packs(scene.sealed)), 0, b"h" * 16, 1.0)
    counted = FailingStore(scene.store, 0, lambda: None)
    assert scene.collect(scene.through(counted)).freed_packs == 6
    data = [method for method, key in counted.calls if key.startswith("packs/")]
    assert [one for one in data if one in ("put", "delete")] == ["put", "delete"] * 3
    scene.assert_whole()
    scene.assert_tidy()


def test_what_was_put_into_trash_is_told(scene: Scene) -> None:
    mount = Lease(scene.sealed, b"m" * 16, LeaseTerms(MOUNT, 0), scene.repository.clock)
    scene.remove(scene.point("a", filled_disk(1)))
    report = scene.collect()
    assert (report.trashed_packs, report.trashed) == (2, scene.stored())
    assert [(one.packs, one.size) for one in report.waiting] == [(2, scene.stored())]
    mount.release()
    assert scene.collect().dropped_notes == 0


def test_a_session_that_was_begun_anew_lets_the_old_lease_go(scene: Scene) -> None:
    """Else a thread of this process would refresh it for ever."""
    before = set(threading.enumerate())
    first, _ = scene.history("a", 2)
    scene.remove(first)

    def end_it() -> None:
        (lease,) = read_leases(scene.sealed)
        for key in keys_of(scene.store, Kind.LEASE):
            assert lease.session.hex() in key
            scene.store.delete(key)

    report = scene.collect(scene.meddled("put", "index/", end_it))
    assert any("taken for dead" in note for note in report.notes)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name
    scene.assert_whole()
